-- The highest claim of each owner of runs that was heard of, and whether that
-- was stopped: what is asked under an earlier one is refused. A row stays when
-- the owner's runs are deleted, so that a holder that hung meanwhile cannot
-- start them anew. platform/ownerfence.ts is the only reader and writer.
create table owner_fences (
  project_id text not null,
  owner_id uuid not null,
  fence bigint not null,
  stopped boolean not null,
  primary key (project_id, owner_id)
);
