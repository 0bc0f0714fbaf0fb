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

typedef bool (*ShardTakeRow) (Datum last, void *state);

/* in result.c */
extern Relation shard_open_argument(FunctionCallInfo fcinfo,
									const char *function);
extern int	shard_count_argument(FunctionCallInfo fcinfo, int n);
extern uint64 shard_return_rows(ReturnSetInfo *rsinfo, const char *query,
								int cursor_options, uint64 max_rows,
								ShardTakeRow take, void *state);

#endif							/* SHARD_CONSUME_PRIVATE_H */
