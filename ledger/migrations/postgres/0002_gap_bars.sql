-- How many bars that were not seen whole stand behind what a signal read; NULL: it was stored before that was kept.
ALTER TABLE signals ADD COLUMN gap_bars BIGINT;
