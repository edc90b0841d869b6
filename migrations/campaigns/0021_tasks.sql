-- The project's own tasks, that a campaign can name. A campaign keeps the task
-- as it was when it started: nothing refers to these rows.
create table tasks (
  project_id text not null,
  name text not null,
  -- A task.v1.Task.
  task jsonb not null,
  updated_at timestamptz not null default now(),
  primary key (project_id, name)
);
