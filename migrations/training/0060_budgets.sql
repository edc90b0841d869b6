-- What this month has been trained so far.
insert into month_spending (project_id, month, name, used)
select project_id, to_char(now() at time zone 'UTC', 'YYYY-MM'), 'training_seconds',
  sum((state->>'trainSeconds')::double precision)
from runs
where state ? 'trainSeconds'
  and date_trunc('month', finished_at at time zone 'UTC') = date_trunc('month', now() at time zone 'UTC')
group by project_id;
