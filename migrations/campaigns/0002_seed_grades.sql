-- How the students of each mined iteration did on each judged row.
create table seed_grades (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  row_id text not null,
  iteration integer not null,
  correct boolean not null,
  answer text not null,
  -- Probability of the expected output, 0 to 1; null where it was not scored.
  expected_probability double precision,
  primary key (campaign_id, row_id, iteration)
);
