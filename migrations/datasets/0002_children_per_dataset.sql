-- A version may grow from one of another dataset, so that a campaign's versions
-- stay out of the user's dataset: the same rows appended to the same version
-- are the same version only within a dataset.
drop index versions_children;
create unique index versions_children on versions (dataset_id, parent_version_id, digest)
  where parent_version_id is not null;
