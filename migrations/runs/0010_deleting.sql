-- Since when a run is being deleted: nobody finds it any more, and its row goes
-- last, so that a deletion that died midway finds what it has left to do.
alter table runs add column deleting_at timestamptz;
create index runs_deleting on runs (project_id) where deleting_at is not null;
