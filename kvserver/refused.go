package kvserver

import (
	"strings"
	"sync"
)

// What clients of Redis may ask for and do not get, by what they are told.
var refusals = map[string]string{
	"values do not expire":                                      "expire pexpire expireat pexpireat expiretime pexpiretime persist setex psetex getex",
	"GET the value, then CAS":                                   "incr incrby incrbyfloat decr decrby getset setrange",
	"GET, then DEL, which is not one step":                      "getdel",
	"GET the whole value":                                       "getrange substr lcs",
	"MSET is atomic, and so is SET with NX":                     "msetnx",
	"there are no transactions: MSET is atomic, CAS is a swap":  "multi exec discard watch unwatch",
	"there is no scripting: CAS is a swap":                      "eval eval_ro evalsha evalsha_ro fcall fcall_ro script function",
	"there are no channels":                                     "subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe publish spublish pubsub",
	"keys cannot be listed: DBSIZE counts them":                 "keys scan randomkey sort sort_ro",
	"DEL the keys":                                              "flushall flushdb",
	"a write is on a majority of the nodes when it is answered": "wait waitaof save bgsave bgrewriteaof",
	"values are strings":                                        "lpush rpush lpop rpop lrange llen blpop brpop hset hget hmget hgetall hdel hincrby sadd srem smembers sismember zadd zrem zrange zscore xadd xread xrange setbit getbit bitcount pfadd pfcount geoadd",
}

// refused holds why a command is not there, or what to use instead, by its name.
var refused = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	for why, names := range refusals {
		for name := range strings.FieldsSeq(names) {
			out[name] = why
		}
	}
	return out
})

// multi ends the connection: what its client has sent behind MULTI was to happen
// together, and must not happen one by one because MULTI was refused.
func multi(f *front, w *respWriter, cl *client, args [][]byte) {
	w.fail(unknownCommand(args))
	f.failures.Add(1)
	cl.quit = true
}

// noPassword is Redis' own text (acl.c authCommand).
func noPassword(_ *front, w *respWriter, _ *client, _ [][]byte) {
	w.fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
}
