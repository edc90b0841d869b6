create table datasets (
  id uuid primary key default gen_random_uuid(),
  -- Order of making; the cursor of a listing.
  ordinal bigint generated always as identity,
  project_id text not null,
  name text not null,
  -- The newest version; null before the first.
  latest_version_id uuid,
  created_at timestamptz not null default now(),
  unique (project_id, name)
);

create index datasets_by_project on datasets (project_id, ordinal desc);

-- A version never changes. Its row is written in the transaction that copies
-- its rows in, after its artifact lies in place: there is no half version.
create table versions (
  id uuid primary key,
  ordinal bigint generated always as identity,
  project_id text not null,
  dataset_id uuid not null references datasets (id),
  parent_version_id uuid references versions (id),
  -- The chain of ancestors from the first to this one itself.
  lineage uuid[] not null,
  -- SHA-256 over the ids of all rows in order.
  digest text not null,
  row_count bigint not null,
  added_row_count bigint not null,
  train_count bigint not null,
  dev_count bigint not null,
  test_count bigint not null,
  artifact_uri text not null,
  artifact_sha256 text not null,
  created_at timestamptz not null default now()
);

create index versions_by_dataset on versions (project_id, dataset_id, ordinal desc);
-- The same rows appended to the same version are the same version.
create unique index versions_children on versions (parent_version_id, digest) where parent_version_id is not null;

-- Only the rows that a version added; positions go on from its parent's
-- row_count. A version's rows are those of its lineage in order of position.
-- No foreign key: it would cost a check a row, and the one writer inserts the
-- version in the same transaction.
create table rows (
  project_id text not null,
  version_id uuid not null,
  position bigint not null,
  id text not null,
  -- Exactly one of input and messages is set.
  input text,
  messages jsonb,
  output text not null,
  split text not null check (split in ('train', 'dev', 'test')),
  origin text not null check (origin in ('seed', 'synthetic')),
  root_row_id text,
  parent_row_id text,
  iteration integer not null,
  metadata jsonb not null,
  primary key (version_id, position)
);

-- What an idempotency key made, so that a second call gets the same answer.
create table commits (
  project_id text not null,
  dataset_id uuid not null references datasets (id),
  idempotency_key text not null,
  -- Digest of the request with its rows: the key with another request is refused.
  request_sha256 text not null,
  version_id uuid not null references versions (id),
  -- Rows imported and rejected, as the first call was told.
  result jsonb not null,
  created_at timestamptz not null default now(),
  primary key (project_id, dataset_id, idempotency_key)
);
