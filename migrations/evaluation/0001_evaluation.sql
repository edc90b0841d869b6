-- Every prediction of an evaluation run with its grade. Written through the
-- run's lease; a new attempt replaces the predictions of the one before.
create table predictions (
  project_id text not null,
  run_id uuid not null references runs (id) on delete cascade,
  -- The row's place in the evaluated rows, from 0.
  position integer not null check (position >= 0),
  row_id text not null,
  text text not null,
  -- Empty when it could not be read.
  answer text not null,
  expected text not null,
  correct boolean not null,
  log_probability double precision not null,
  -- [{"label": …, "logProbability": …}]; empty where labels were not scored.
  label_scores jsonb not null,
  too_long boolean not null,
  primary key (run_id, position)
);

-- Error mining asks for the wrong ones only.
create index predictions_wrong on predictions (run_id, position) where not correct;
