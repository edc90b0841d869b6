-- Metrics of a training run, one row an optimizer step. Written through the
-- run's lease; a new attempt replaces the steps of the one before.
create table training_steps (
  project_id text not null,
  run_id uuid not null references runs (id) on delete cascade,
  step integer not null check (step >= 1),
  total_steps integer not null,
  -- Nats per completion token.
  loss double precision not null,
  learning_rate double precision not null,
  tokens_per_second double precision not null,
  eta_seconds double precision not null,
  grad_norm double precision not null,
  primary key (run_id, step)
);
