-- A call outlives its run while results of another run rest on its reply.
alter table calls drop constraint calls_run_id_fkey;
create index results_by_call on results (call_id);

-- What calls of deleted runs cost: numbers only, no prompt and no reply, so
-- that accounts stay true.
create table ledger (
  call_id uuid primary key,
  project_id text not null,
  -- The run that made it, which is gone.
  run_id uuid not null,
  teacher_profile text not null,
  model text not null,
  status text not null check (status in ('answered', 'failed')),
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  cost_micro_usd bigint not null,
  duration_ms bigint not null,
  finished_at timestamptz not null
);
create index ledger_by_project on ledger (project_id);
