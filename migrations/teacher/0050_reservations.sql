-- What a try may cost, set aside before it is sent and removed in the
-- transaction that stores its call. What a dead holder leaves here may have
-- been sent: it becomes a failed call at the whole amount.
create table reservations (
  -- The id that the call will have.
  call_id uuid primary key,
  project_id text not null,
  run_id uuid not null references runs (id),
  -- Of the holder that sends it.
  fence bigint not null,
  request_digest text not null,
  teacher_profile text not null,
  model text not null,
  prompt text not null,
  -- Upper bounds.
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  cost_micro_usd bigint not null,
  reserved_at timestamptz not null default now()
);
create index reservations_by_run on reservations (project_id, run_id);
