/*-------------------------------------------------------------------------
 *
 * consume_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_CONSUME_PRIVATE_H
#define SHARD_CONSUME_PRIVATE_H

#include "consume/consume.h"

/* How far a consumer has read a shard. */
typedef struct ShardProgress
{
	bool		has_id;			/* false: not read so far */
	int64		id;				/* the watermark: the last id that it has read */
	bool		has_window;		/* false: not read by windows so far */
	TimestampTz window_end;		/* the end of the last one */
} ShardProgress;

/* A shard that a consumer is to read. */
typedef struct ShardLane
{
	Oid			shard;
	ShardProgress progress;
} ShardLane;

/* A consumer, seen from a shard. */
typedef struct ShardReader
{
	char	   *consumer;
	char	   *time_column;	/* whose windows it reads, or NULL */
	ShardProgress progress;
} ShardReader;

/* What a consumer has read of a shard as a window. */
typedef struct ShardWindow
{
	bool		has_start;		/* false: from the beginning */
	TimestampTz start;
	uint64		nrows;
	uint64		nlate;			/* those of them before "start" */
} ShardWindow;

/* Is the row with this last column to be returned? */
typedef bool (*ShardTakeRow) (Datum last, void *state);

/* in registry.c */
extern const char *shard_check_consumable(Oid relid);
extern void shard_check_window_column(Relation logical, const char *column,
									  const char *id);
extern char *shard_lock_consumer(Oid relid, const char *consumer,
								 LOCKMODE mode);
extern void shard_update_lanes(Oid relid, const char *consumer);
extern bool shard_is_behind(Oid shard, Oid sequence,
							const ShardProgress *progress);
extern ShardLane *shard_list_lanes(Oid relid, const char *consumer,
								   const ShardProgress *up_to, uint64 *nlanes);
extern bool shard_lock_lane(Oid relid, const char *consumer, ShardLane *lane,
							const ShardProgress *up_to);
extern void shard_advance_lane(Oid relid, const char *consumer,
							   const ShardLane *lane);
extern void shard_record_window(Oid relid, const char *consumer,
								const ShardLane *lane,
								const ShardWindow *window);
extern void shard_set_lane(Oid relid, const char *consumer, Oid shard,
						   const ShardProgress *progress);
extern void shard_add_consumer(Oid relid, const char *consumer,
							   const char *column, bool has_windows);
extern ShardReader *shard_list_readers(Oid relid, Oid shard,
									   uint64 *nreaders);

/* in result.c */
extern Relation shard_open_argument(FunctionCallInfo fcinfo,
									const char *function);
extern int	shard_count_argument(FunctionCallInfo fcinfo, int n);
extern uint64 shard_return_rows(ReturnSetInfo *rsinfo, const char *query,
								int nparams, Oid *types, const Datum *values,
								int cursor_options, uint64 max_rows,
								ShardTakeRow take, void *state);

#endif							/* SHARD_CONSUME_PRIVATE_H */
