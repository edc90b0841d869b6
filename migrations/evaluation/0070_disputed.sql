-- Whether a strict and a lenient reading of the answer are graded differently. An older version leaves it out.
alter table predictions add column disputed boolean not null default false;
