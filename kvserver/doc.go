// Package kvserver is a small replicated key-value server: Raft beneath, the
// Redis protocol on top. It is a program of its own, usable without anything
// else of this module, and knows nothing of what may be done to it.
//
// # The way of a write
//
// A connection's pipeline is read (front.go, respreader.go) and understood (resp.go, commands.go),
// its writes join the proposer's queue together (proposer.go), the proposer puts everything that waits into
// one Raft entry (entry.go), Raft stores and replicates it through the wrapped
// log store and transport (logstore.go, transport.go), every node applies it
// (fsm.go, sessions.go), and the results go back command by command.
//
// # Commands
//
// With their Redis meaning: PING, ECHO, SET key value [NX|XX] [KEEPTTL], SETNX, GET,
// DEL, UNLINK, EXISTS, TYPE, TTL, PTTL (nothing expires), APPEND, STRLEN, MGET, MSET,
// DBSIZE, INFO, SELECT 0, QUIT, READONLY, READWRITE, and as much of COMMAND, CONFIG
// GET, CLIENT and HELLO 2 as redis-cli, redis-benchmark and client libraries ask for.
// What else clients often ask for is refused with a hint (refused.go); MULTI ends the
// connection as well, so that nothing sent behind it is done by itself. Of its own:
//
//	CAS key old new              sets key to new if it holds old; answers [1, old], or
//	                             [0, what it holds]. An absent key, which is [0, nil],
//	                             matches nothing, not even the empty string.
//	SESSION id                   registers a session (sessions.go); answers the number of its last write
//	ONCE id number command...    does a write of a session at most once
//
// DEL and MSET of many keys are atomic; a pipeline is not.
//
// # Shards
//
// A cluster may have several shards (Config.Shards, at most 64): Raft groups that
// share the nodes, their front (front.go) and one pair of connections between any
// two of them (transport.go), and have a log, a state and a leader each (group.go).
// Keys belong to shards by Redis Cluster's slots (package slots), so clients of
// Redis Cluster find their way: CLUSTER SLOTS, SHARDS, NODES, INFO, KEYSLOT, MYID, and
// a redirect for each key. When a cluster first starts, shard i is led by the i-th
// node, round and round; later by whoever its members elect. Limits of queues and
// batches are each shard's own.
//
// With several shards a command's keys must be on one of them, else it is refused
// with -CROSSSLOT; several slots of one shard will do. A session lives on the shard
// of its id and is good for keys of that shard: {k7}mine is on k7's. DBSIZE counts
// the shards that the node leads. Writes of one pipeline to different shards may take
// effect in either order. The number of shards is fixed for life.
//
// # What an error means
//
// A client must be able to tell "did not happen" from "may have happened":
//
//	-MOVED slot host:port  not done, and will not be: ask there
//	-UNAVAIL why           not done, and will not be
//	-UNKNOWN why           may have been done, or may still be
//	-ERR, -NOSESSION ...   the command itself was refused, not done
//
// A connection that breaks before the reply is UNKNOWN for writes. The proof
// of which error of the Raft library belongs where stands in proposer.go.
//
// # Reads
//
// See reads.go: "readindex" (default) is linearizable whatever the clocks and
// the scheduler do, "lease" is linearizable only while clocks run at the same
// rate and nobody is made leader by force, "local" may be arbitrarily stale.
//
// # Locks
//
// How the state is guarded between who applies and who reads is a choice, to see
// what it costs (locks.go): "rw" (default), "global", "sharded" by key over
// lock_shards locks, "lockfree-read". No choice changes what clients may see.
//
// # Downstream
//
// A leader may write through to a cache (downstream.go), before or after the client
// has its answer: -UNKNOWN downstream ... says that the write is done here, and that
// nobody knows of the cache.
//
// # Codecs
//
// The form of entries, in logs and between nodes, is a choice as well, to see what
// serialization costs (codec.go): "binary" (default), or what a service would have
// used, "protobuf", "json", "xml", "gob", "msgpack", "avro"; codec_bloat and
// codec_fields make each command as fat as verbose interfaces do. An entry's first
// byte tells its codec, so nodes of different codecs, and of logs written with
// others, work together.
//
// # What it does not do
//
// No expiry, no types but strings, no membership changes: the set of nodes is
// fixed when a cluster first starts. No TLS and no passwords: it is meant for
// private networks.
package kvserver
