-- How near a free text comes to the expected one: ROUGE-L F, 0 to 1; null for other kinds of task.
alter table predictions add column rouge_l double precision;
