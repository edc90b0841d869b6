-- The run row is the job. One such table in the schema of every service that
-- has long work; platform/runs.ts is its only reader and writer.
create table runs (
  id uuid primary key default gen_random_uuid(),
  project_id text not null,
  idempotency_key text not null,
  -- What was asked, and its digest: the same key with another request is refused.
  request jsonb not null,
  request_sha256 text not null,
  status text not null default 'QUEUED'
    check (status in ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
  cancel_requested boolean not null default false,
  -- Raised by every claim. A write of an earlier holder carries an older fence
  -- and is refused.
  fence bigint not null default 0,
  lease_holder text,
  lease_until timestamptz,
  -- A run that waits for a busy student is not claimed before this.
  not_before timestamptz not null default now(),
  -- Claims that ended with "try again later" in a row.
  deferrals integer not null default 0,
  progress jsonb not null default '{}',
  -- The service's own state of the run; its shape is the service's.
  state jsonb not null default '{}',
  failure jsonb,
  -- Raised by every change that a watcher should see.
  revision bigint not null default 1,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  unique (project_id, idempotency_key)
);

-- The claim looks only at these.
create index runs_claimable on runs (created_at) where status in ('QUEUED', 'RUNNING');
create index runs_by_project on runs (project_id, created_at desc, id);

create function notify_run() returns trigger language plpgsql as $$
begin
  perform pg_notify('tutelage_runs', tg_table_schema || ':' || new.id);
  return null;
end
$$;

create trigger notify_run after insert or update of revision on runs
  for each row execute function notify_run();
