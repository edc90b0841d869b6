-- Set from the moment on at which a dataset is being deleted: nobody finds it
-- any more, and its row goes last, so that whoever goes on knows what is left.
alter table datasets add column deleting_at timestamptz;

-- Who made it for itself, "campaign/<id>": only the owner deletes it. Empty for
-- a dataset of the project.
alter table datasets add column owner text not null default '';
update datasets set owner = 'campaign/' || substr(name, 10)
  where name ~ '^campaign-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';

-- Who else needs a version: its dataset cannot be deleted meanwhile.
create table holds (
  project_id text not null,
  version_id uuid not null references versions (id),
  -- "campaign/<id>"; this service only shows it.
  holder text not null,
  -- Null holds until it is released. One with an end is placed before its
  -- holder is stored, so that a holder that never came to be holds nothing.
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (project_id, version_id, holder)
);
create index holds_by_holder on holds (project_id, holder);

-- Versions of other datasets that grew from one of this.
create index versions_by_lineage on versions using gin (lineage);
-- Versions that share an artifact: equal rows in equal order.
create index versions_by_digest on versions (project_id, digest);
