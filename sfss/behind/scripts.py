"""What is done in Redis in one step: Lua, and the names of what lies there. Pure text.

All names begin with ``{sfss}:``, so that they are in one slot of a Redis Cluster.

====================== =======  ========================================================================================
``{sfss}:file:PATH``   hash     a record that waits: ``v`` its order, ``h`` prefix and header, ``p`` payload, ``s``
                                bytes, ``t`` its task, or ``d`` its dead letter; ``n`` how often it failed. And one of
                                blocks that is on its way to the nodes, in ``m mh mp ms mt mn``; ``ml`` how many may be
                                landing it, ``ma`` the second in which a front was at it last
``{sfss}:mark:PATH``   string   the order of what was there last and has been moved, with a ``+`` if the nodes had a
                                newer one; goes after MARK_TTL
``{sfss}:undone:PATH`` string   the highest order that was given up while somebody might be landing it; goes after
                                UNDONE_TTL
``{sfss}:paths``       zset     the paths of all that waits, by their bytes
``{sfss}:tasks``       stream   ``k`` path, ``v`` order; group ``sfss``. One task to each record that isn't dead
``{sfss}:dead``        stream   ``k`` path, ``v`` order, ``w`` why, ``n`` how often it was tried
``{sfss}:totals``      hash     ``bytes`` of all that waits, ``landed``: the highest order that was moved
``{sfss}:workers``     zset     the workers, by the second at which they are to be taken for dead
====================== =======  ========================================================================================

An *order* is version and front as 30 digits, so that texts compare as the pairs do. The *state* of a path is the order
of what is on its way, else of what waits there, else its mark, else nothing: it changes with each write, but not when a
record is moved.

What is *on its way* has its turn, and nobody was told that it is kept: what waits stays, and is read, until it is done.
Its end is one of these:

* it is *done*: it is on the nodes, or something newer that came behind it is; or a newer one, that waits, has taken
  its place. It has had its turn.
* it is *undone* as refused, as if it had never been: only if each who may have been landing it was told by the nodes
  that nothing of it was stored. ``ml`` counts them: whoever lands it is counted before, and is counted out by such a
  refusal only, so that one that has died, or has brought it to some node, keeps it on its way.
* it is *undone* as forsaken, when its blocks may be swept and no front was at it for long. Somebody may be landing it
  all the same, and come back: ``undone`` tells him, who can't know then whether it had its turn.

A task is taken away with its record. Whoever finds that there is no record to a task takes away that task only: the
same record may be there again by then, in the same order, with another task.

Where a script may find Redis full, its first command that writes is one that Redis refuses then; in the others it is
one that is never refused. Behind the first one all are let through: no script is left half done.
"""

from __future__ import annotations

import hashlib

TAG = "{sfss}:"
TASKS, DEAD, PATHS, TOTALS, WORKERS = (TAG + name for name in ("tasks", "dead", "paths", "totals", "workers"))
FILE, MARK, UNDONE = TAG + "file:", TAG + "mark:", TAG + "undone:"
GROUP = "sfss"
MARK_TTL = 120  # seconds; longer than anybody goes by a state
UNDONE_TTL = 86400  # seconds; longer than anybody stands still

# KEYS file mark tasks paths dead totals
# ARGV order header payload path expected max_tasks max_bytes on_its_way
# expected: "*" whatever waits there; "=STATE" just that state, of which the caller has seen what the nodes have.
# max_tasks 0: however full it is. on_its_way "1": it isn't to wait, but to be on its way.
ACCEPT = """
local cur = redis.call('HMGET', KEYS[1], 'v', 's', 't', 'd', 'm', 'ms', 'mt')
local going = cur[5]
local state = going or cur[1] or redis.call('GET', KEYS[2]) or ''
local order, expected = ARGV[1], ARGV[5]
if state == order then
  if going then
    redis.call('HINCRBY', KEYS[1], 'ml', 1)
    redis.call('HSET', KEYS[1], 'ma', redis.call('TIME')[1])
  end
  return {'kept', state}
end
if expected:sub(1, 1) == '=' then
  if expected ~= '=' .. state then return {'changed', state} end
elseif not cur[1] and not going then
  if state >= order or (redis.call('HGET', KEYS[6], 'landed') or '') >= order then return {'look', state} end
end
if going and (going >= order or ARGV[8] == '1') then return {'going', state} end
if cur[1] and cur[1] >= order then return {'old', state} end
local size, before = #ARGV[2] + #ARGV[3], tonumber(cur[2] or 0)
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[1], 'm', order, 'mh', ARGV[2], 'mp', ARGV[3], 'ms', size, 'ml', 1)
  redis.call('HSET', KEYS[1], 'ma', redis.call('TIME')[1])
  redis.call('HSET', KEYS[1], 'mt', redis.call('XADD', KEYS[3], '*', 'k', ARGV[4], 'v', order))
  redis.call('HINCRBY', KEYS[6], 'bytes', size)
  return {'kept', order}
end
local tasks, bytes = redis.call('ZCARD', KEYS[4]), tonumber(redis.call('HGET', KEYS[6], 'bytes') or 0)
if ARGV[6] ~= '0' and (not cur[1] or size > before) then
  if not cur[1] and tasks >= tonumber(ARGV[6]) then return {'tasks', tostring(tasks)} end
  if bytes - before + size > tonumber(ARGV[7]) then return {'bytes', string.format('%.0f', bytes)} end
end
redis.call('HSET', KEYS[1], 'v', order, 'h', ARGV[2], 'p', ARGV[3], 's', size)
redis.call('HDEL', KEYS[1], 'd', 'n', 'm', 'mh', 'mp', 'ms', 'mt', 'mn', 'ml', 'ma')
if cur[3] then redis.call('XDEL', KEYS[3], cur[3]) end
if cur[4] then redis.call('XDEL', KEYS[5], cur[4]) end
if going then redis.call('XDEL', KEYS[3], cur[7]) end
redis.call('HSET', KEYS[1], 't', redis.call('XADD', KEYS[3], '*', 'k', ARGV[4], 'v', order))
redis.call('ZADD', KEYS[4], 0, ARGV[4])
redis.call('HINCRBY', KEYS[6], 'bytes', size - before - tonumber(cur[6] or 0))
return {'kept', order}
"""

# A record is on the nodes, or something newer is: it and its task go, if it is still that one; and if it was on its
# way, what waited before it. The mark is another one where something newer is: what was judged by what waited doesn't
# hold of that. KEYS file mark tasks paths dead totals; ARGV order task path group mark_ttl mark
DONE = """
redis.call('XACK', KEYS[3], ARGV[4], ARGV[2])
redis.call('XDEL', KEYS[3], ARGV[2])
local cur = redis.call('HMGET', KEYS[1], 'v', 's', 't', 'd', 'm', 'ms', 'mt')
local went = cur[5] == ARGV[1]
if cur[1] ~= ARGV[1] and not went then return 0 end
local freed = tonumber(cur[2] or 0)
if cur[3] then
  redis.call('XACK', KEYS[3], ARGV[4], cur[3])
  redis.call('XDEL', KEYS[3], cur[3])
end
if cur[4] then redis.call('XDEL', KEYS[5], cur[4]) end
if went then
  redis.call('XACK', KEYS[3], ARGV[4], cur[7])
  redis.call('XDEL', KEYS[3], cur[7])
  freed = freed + tonumber(cur[6])
end
if cur[5] and not went then
  redis.call('HDEL', KEYS[1], 'v', 'h', 'p', 's', 't', 'd', 'n')
else
  redis.call('DEL', KEYS[1])
end
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('SET', KEYS[2], ARGV[6], 'EX', ARGV[5])
redis.call('HINCRBY', KEYS[6], 'bytes', -freed)
if (redis.call('HGET', KEYS[6], 'landed') or '') < ARGV[1] then redis.call('HSET', KEYS[6], 'landed', ARGV[1]) end
return 1
"""

# One more is about to land what is on its way; 0 if it isn't any more. KEYS file; ARGV order
BEGIN = """
redis.call('HDEL', KEYS[1], '-')
if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'ml', 1)
return 1
"""

# A record that was on its way isn't any more; what waits is as it was. If it was refused, only if nobody else may be
# landing it. If it is given up as forsaken, some node may have it, or get it: who is to come next in an older version
# has to look, and who was landing it is to learn of it. 1 if this has taken it away.
# KEYS file tasks totals undone; ARGV order group is_refused undone_ttl
UNDO = """
redis.call('HDEL', KEYS[1], '-')
local cur = redis.call('HMGET', KEYS[1], 'm', 'ms', 'mt')
if cur[1] ~= ARGV[1] then return 0 end
if ARGV[3] == '1' then
  if redis.call('HINCRBY', KEYS[1], 'ml', -1) > 0 then return 0 end
elseif (redis.call('GET', KEYS[4]) or '') < ARGV[1] then
  redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[4])
end
redis.call('XACK', KEYS[2], ARGV[2], cur[3])
redis.call('XDEL', KEYS[2], cur[3])
redis.call('HDEL', KEYS[1], 'm', 'mh', 'mp', 'ms', 'mt', 'mn', 'ml', 'ma')
redis.call('HINCRBY', KEYS[3], 'bytes', -tonumber(cur[2]))
if (redis.call('HGET', KEYS[3], 'landed') or '') < ARGV[1] then redis.call('HSET', KEYS[3], 'landed', ARGV[1]) end
return 1
"""

# A task goes that has no record, or whose record has another one. KEYS tasks; ARGV task group
DROP = """
redis.call('XACK', KEYS[1], ARGV[2], ARGV[1])
return redis.call('XDEL', KEYS[1], ARGV[1])
"""

# A task goes to the end of the stream, for whoever reads next; its new name, or nothing if it is none any more.
# KEYS file tasks; ARGV order task path group
GIVE_BACK = """
redis.call('XACK', KEYS[2], ARGV[4], ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
local cur = redis.call('HMGET', KEYS[1], 'v', 't', 'm', 'mt')
local field
if cur[1] == ARGV[1] and cur[2] == ARGV[2] then field = 't' end
if cur[3] == ARGV[1] and cur[4] == ARGV[2] then field = 'mt' end
if not field then return '' end
local task = redis.call('XADD', KEYS[2], '*', 'k', ARGV[3], 'v', ARGV[1])
redis.call('HSET', KEYS[1], field, task)
return task
"""

# The group of workers is there. KEYS tasks; ARGV group
JOIN = """
redis.call('XDEL', KEYS[1], '0-1')
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not made.err:find('BUSYGROUP') then return made end
return 1
"""

# One more try has failed: how many have; 0 if the record is another one by now. KEYS file; ARGV order
FAILED = """
redis.call('HDEL', KEYS[1], '-')
local cur = redis.call('HMGET', KEYS[1], 'v', 'm')
if cur[1] == ARGV[1] then return redis.call('HINCRBY', KEYS[1], 'n', 1) end
if cur[2] == ARGV[1] then return redis.call('HINCRBY', KEYS[1], 'mn', 1) end
return 0
"""

# A task becomes a dead letter. KEYS file tasks dead; ARGV order task path group why
BURY = """
redis.call('XACK', KEYS[2], ARGV[4], ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
local cur = redis.call('HMGET', KEYS[1], 'v', 't', 'n')
if cur[1] ~= ARGV[1] or cur[2] ~= ARGV[2] then return 0 end
local letter = redis.call('XADD', KEYS[3], '*', 'k', ARGV[3], 'v', ARGV[1], 'w', ARGV[5], 'n', cur[3] or 0)
redis.call('HSET', KEYS[1], 'd', letter)
redis.call('HDEL', KEYS[1], 't')
return 1
"""

# A dead letter becomes a task again. KEYS file tasks dead; ARGV letter order path
REVIVE = """
if redis.call('XDEL', KEYS[3], ARGV[1]) == 0 then return 0 end
local cur = redis.call('HMGET', KEYS[1], 'v', 'd')
if cur[1] ~= ARGV[2] or cur[2] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'd', 'n')
redis.call('HSET', KEYS[1], 't', redis.call('XADD', KEYS[2], '*', 'k', ARGV[3], 'v', ARGV[2]))
return 1
"""

# Paths with their headers, in order. KEYS paths; ARGV min max limit file_prefix
PAGE = """
local found = {}
for _, path in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = path
  found[#found + 1] = redis.call('HGET', ARGV[4] .. path, 'h') or ''
end
return found
"""

# A worker lives, for so many seconds more; those that have been dead for a day are forgotten.
# KEYS workers; ARGV name ttl
BEAT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return now
"""

# A worker is no more; a consumer goes only if nothing is left with it. KEYS workers tasks; ARGV name group
LEAVE = """
redis.call('ZREM', KEYS[1], ARGV[1])
if #redis.call('XPENDING', KEYS[2], ARGV[2], '-', '+', 1, ARGV[1]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[2], ARGV[1])
return 1
"""

SHA1 = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (ACCEPT, DONE, BEGIN, UNDO, DROP, JOIN, GIVE_BACK, FAILED, BURY, REVIVE, PAGE, BEAT, LEAVE)
}
