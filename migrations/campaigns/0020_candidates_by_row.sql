-- From a synthetic row to the candidate that it was.
create index candidates_by_row on candidates (project_id, (candidate ->> 'rowId')) where accepted;
