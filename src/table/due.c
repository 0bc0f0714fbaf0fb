/*-------------------------------------------------------------------------
 *
 * due.c
 *	  What is to be done about a logical table, and when: rotation, ranges,
 *	  retention.
 *
 * A generation of shards ends at the next point of a grid, whenever it has
 * begun: with "1 day" at midnight, with "1 hour" at the full hour, with "1
 * week" on Monday, with "3 months" at the beginning of a quarter.  The grid is
 * that of UTC, because the sessions that look at it can have any time zone,
 * and because a local hour can come twice, or never.
 *
 *-------------------------------------------------------------------------
 */
#include "table/table_private.h"

#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"

/* The year in which the grid begins.  Its first day was a Monday. */
#define GRID_YEAR	2001

/* More years than lie between the first timestamp and now. */
#define MAX_YEARS	6000

/*
 * shard_make_schedule
 *		What the options of a logical table say, whose time column has this
 *		type, or InvalidOid if it has none.
 */
void
shard_make_schedule(const ShardOptions *options, Oid time_type,
					ShardSchedule *schedule)
{
	memset(schedule, 0, sizeof(ShardSchedule));
	schedule->time_type = time_type;
	schedule->is_manual = options->is_manual;
	/* Each generation of a hash table could hold the same keys once more. */
	schedule->has_rotate_every = options->rotate_every != NULL &&
		options->route != SHARD_ROUTE_HASH;
	if (schedule->has_rotate_every)
		schedule->rotate_every = *options->rotate_every;
	schedule->has_retain_for = options->retain_for != NULL;
	if (schedule->has_retain_for)
		schedule->retain_for = *options->retain_for;
}

/*
 * The greatest multiple of "step" that is not greater than the value, and one
 * step more.
 */
static bool
next_multiple(int64 value, int64 step, int64 *result)
{
	int64		n = value / step - (value % step < 0 ? 1 : 0);

	return !pg_mul_s64_overflow(n + 1, step, result);
}

/*
 * A time so many months, and so much, later.
 */
static TimestampTz
add_to_time(TimestampTz start, int64 months, int64 day_time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	TimestampTz result;

	/* Timestamps are in UTC, if no time zone is given. */
	if (timestamp2tm(start, NULL, &tm, &fsec, NULL, NULL) != 0)
		return DT_NOEND;
	months += (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1;
	if (months / MONTHS_PER_YEAR > PG_INT32_MAX / 2)
		return DT_NOEND;
	tm.tm_year = months / MONTHS_PER_YEAR;
	tm.tm_mon = months % MONTHS_PER_YEAR + 1;
	tm.tm_mday = Min(tm.tm_mday, day_tab[isleap(tm.tm_year)][tm.tm_mon - 1]);
	if (!IS_VALID_JULIAN(tm.tm_year, tm.tm_mon, tm.tm_mday) ||
		tm2timestamp(&tm, fsec, NULL, &result) != 0 ||
		pg_add_s64_overflow(result, day_time, &result) ||
		!IS_VALID_TIMESTAMP(result))
		return DT_NOEND;
	return result;
}

/*
 * When a generation that began then ends.
 */
static TimestampTz
next_rotation(TimestampTz began, const Interval *every)
{
	TimestampTz origin = (date2j(GRID_YEAR, 1, 1) - POSTGRES_EPOCH_JDATE) *
		USECS_PER_DAY;
	int64		day_time;

	if (TIMESTAMP_NOT_FINITE(began) ||
		pg_mul_s64_overflow(every->day, USECS_PER_DAY, &day_time) ||
		pg_add_s64_overflow(day_time, every->time, &day_time))
		return DT_NOEND;
	if (every->month == 0)
	{
		int64		result;

		if (!next_multiple(began - origin, day_time, &result) ||
			pg_add_s64_overflow(result, origin, &result) ||
			!IS_VALID_TIMESTAMP(result))
			return DT_NOEND;
		return result;
	}
	if (day_time == 0)
	{
		struct pg_tm tm;
		fsec_t		fsec;
		int64		months;

		if (timestamp2tm(began, NULL, &tm, &fsec, NULL, NULL) != 0 ||
			!next_multiple((int64) (tm.tm_year - GRID_YEAR) * MONTHS_PER_YEAR +
						   tm.tm_mon - 1, every->month, &months))
			return DT_NOEND;
		return add_to_time(origin, months, 0);
	}
	/* Months and days together have no grid. */
	return add_to_time(began, every->month, day_time);
}

/*
 * shard_is_before
 *		Is a time of the type of a time column before another?  As the
 *		operator says, by the session's time zone.
 */
bool
shard_is_before(Datum value, Oid type, TimestampTz limit)
{
	PGFunction	function = type == TIMESTAMPTZOID ? timestamp_lt :
		type == TIMESTAMPOID ? timestamp_lt_timestamptz : date_lt_timestamptz;

	return DatumGetBool(DirectFunctionCall2(function, value,
											TimestampTzGetDatum(limit)));
}

/*
 * shard_retention_limit
 *		Up to which time rows may go that are to be kept for so long, by the
 *		session's time zone.
 */
TimestampTz
shard_retention_limit(TimestampTz now, const Interval *retain_for)
{
	if (retain_for->month / MONTHS_PER_YEAR + retain_for->day / 365 +
		retain_for->time / USECS_PER_DAY / 365 >= MAX_YEARS)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(now),
												   IntervalPGetDatum(retain_for)));
}

/*
 * shard_is_expired
 *		Are all rows of a shard that has a range from before the limit?
 */
bool
shard_is_expired(const ShardMember *member, Oid type, TimestampTz limit)
{
	return shard_is_before(type == DATEOID ?
						   DateADTGetDatum((DateADT) member->range_max) :
						   Int64GetDatum(member->range_max),
						   type, limit);
}

/*
 * shard_find_due
 *		Find out what is to be done about a logical table with this schedule
 *		and these shards, whose ranges are filled in.
 *
 * For views, too: waits for nobody.
 */
void
shard_find_due(Oid logical, const ShardSchedule *schedule,
			   const ShardMember *members, int nmembers, TimestampTz now,
			   ShardDue *due)
{
	TimestampTz limit = !schedule->has_retain_for ? DT_NOBEGIN :
		shard_retention_limit(now, &schedule->retain_for);

	memset(due, 0, sizeof(ShardDue));
	due->next_rotation = DT_NOEND;
	if (!OidIsValid(schedule->time_type))
		return;
	if (!shard_get_generation(logical, &due->began))
		due->begin = schedule->has_rotate_every;
	else if (schedule->has_rotate_every)
	{
		due->next_rotation = next_rotation(due->began,
										   &schedule->rotate_every);
		due->rotate = now >= due->next_rotation;
	}
	for (int i = 0; i < nmembers; i++)
	{
		const ShardMember *member = &members[i];

		if (member->is_open || !member->is_local)
			continue;
		if (!member->has_range)
			due->nranges += !member->has_children;
		else if (shard_is_expired(member, schedule->time_type, limit) &&
				 (member->state == SHARD_CLOSED ||
				  shard_is_closed(member->relid)))
			due->nexpired++;
	}
}
