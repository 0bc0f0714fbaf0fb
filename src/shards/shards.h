/*-------------------------------------------------------------------------
 *
 * shards.h
 *	  What a DBA does to shards: what the other wings use of this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_SHARDS_H
#define SHARD_SHARDS_H

#include "table/table.h"

/* in drop_guard.c */
extern void shard_guard_init(void);

/* in watch.c */
extern void shard_watch_init(void);

#endif							/* SHARD_SHARDS_H */
