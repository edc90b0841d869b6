-- The ledger: every call that reached for a teacher, stored before anything
-- uses its reply. A retry is a call of its own.
create table calls (
  id uuid primary key,
  -- Order in which calls ended.
  sequence bigint generated always as identity,
  project_id text not null,
  run_id uuid not null references runs (id),
  -- SHA-256 of everything that shaped the reply.
  request_digest text not null,
  teacher_profile text not null,
  model text not null,
  status text not null check (status in ('answered', 'failed')),
  error_code text not null default '',
  prompt text not null,
  raw_reply text not null,
  -- The reply as read: text, how it ended, likelihoods. Null when failed.
  reply jsonb,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  cost_micro_usd bigint not null,
  duration_ms bigint not null,
  finished_at timestamptz not null,
  check ((status = 'answered') = (reply is not null))
);

-- Pay once: the lookup before every call. Not unique: two processes may have
-- made the same call at the same moment, and both were paid.
create index calls_answered on calls (project_id, request_digest) where status = 'answered';
create index calls_by_run on calls (project_id, run_id, sequence);

-- What came of each attempt of a run, at its place in the run's work.
create table results (
  project_id text not null,
  run_id uuid not null references runs (id),
  -- Index of the order or row in the request.
  position integer not null,
  attempt integer not null,
  row_id text not null,
  call_id uuid not null references calls (id),
  -- The reply came from an earlier call and cost nothing.
  reused boolean not null,
  -- tutelage.teacher.v1.Result.outcome
  outcome jsonb not null,
  primary key (project_id, run_id, position, attempt)
);
