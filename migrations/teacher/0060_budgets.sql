-- The month that a try counts for: the one in which it was set aside, also when
-- it ends in the next. Null for those of a former version, which no month counts.
alter table reservations add column month text;
alter table calls add column month text;

-- What this month has cost so far.
insert into month_spending (project_id, month, name, used)
select project_id, to_char(now() at time zone 'UTC', 'YYYY-MM'), name, sum(amount)
from (
  select project_id, finished_at, prompt_tokens, completion_tokens, cost_micro_usd from calls
  union all
  select project_id, finished_at, prompt_tokens, completion_tokens, cost_micro_usd from ledger
) as paid
cross join lateral (values
  ('teacher_calls', 1::double precision),
  ('teacher_tokens', (prompt_tokens + completion_tokens)::double precision),
  ('cost_micro_usd', cost_micro_usd::double precision)) as quantity (name, amount)
where date_trunc('month', finished_at at time zone 'UTC') = date_trunc('month', now() at time zone 'UTC')
group by project_id, name;
