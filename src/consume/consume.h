/*-------------------------------------------------------------------------
 *
 * consume.h
 *	  Reading incrementally: what the other wings use of this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_CONSUME_H
#define SHARD_CONSUME_H

#include "table/table.h"

/* in consumer.c */
extern char *shard_unread_by(Oid logical, Oid shard);

/* in registry.c */
extern void shard_forget_consumers(Oid relid);
extern void shard_forget_lanes(Oid relid, Oid shard);
extern void shard_column_renamed(Oid relid, const char *from, const char *to);
extern void shard_check_column_unread(Oid relid, const char *column);

#endif							/* SHARD_CONSUME_H */
