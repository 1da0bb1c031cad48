"""What Redis does for us in one step: scripts in Lua, each over one item.

A value is an item: 8 bytes that the writer draws, and the record. They are the item's token: whoever writes draws new
ones, so that no item is ever taken for one that was there before, be its record the same.
"""

from __future__ import annotations

import hashlib
import secrets

from sfss.record import ORDER_AT, PREFIX_SIZE

TOKEN = 8  # bytes
HEAD = 512  # bytes of a record that are asked for to see its header, which most have whole

# A sorted set of all our keys, in their order: whatever makes or removes an item adds it, or takes it out, in the same
# step. KEYS[2], which a cluster has not: there it would belong to another member than most keys.
INDEX = b"sfss:keys"
# Lies there once the index has all keys: not yet where there were some before it.
INDEXED = b"sfss:keys:whole"

# KEYS[1], its new item, and for how many seconds, 0 for good. An item that ends leaves its key in the index: LIST sees.
_STORE = """
local function store(is_new)
  if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])
  else redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
  if is_new and KEYS[2] then redis.call('ZADD', KEYS[2], 0, KEYS[1]) end
  return 1
end
"""
# ... while its token is ARGV[3]. An item of another program may be shorter than a token.
_IF_SAME = f"""
local there = redis.call('GETRANGE', KEYS[1], 0, {TOKEN - 1})
if there == '' or there .. string.rep('\\0', {TOKEN} - #there) ~= ARGV[3] then return 0 end
"""
_REMOVE = """
if KEYS[2] then redis.call('ZREM', KEYS[2], KEYS[1]) end
return redis.call('DEL', KEYS[1])
"""

# ARGV[3] is what orders the record (sfss/record.py: order_bytes). Lua's own comparison goes by the server's locale.
SET = f"""{_STORE}
local there = redis.call('GETRANGE', KEYS[1], {TOKEN}, {TOKEN + ORDER_AT - 1} + #ARGV[3])
if string.sub(there, 1, 6) == 'SFSS\\1\\0' then
  for n = 1, #ARGV[3] do
    local theirs, ours = string.byte(there, {ORDER_AT} + n), string.byte(ARGV[3], n)
    if theirs == nil or theirs < ours then return store(false) end
    if theirs > ours then return 0 end
  end
end
return store(there == '')
"""
ADD = f"{_STORE}if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end\nreturn store(true)\n"
REPLACE = f"{_STORE}{_IF_SAME}return store(false)\n"
REMOVE = f"{_IF_SAME}{_REMOVE}"
DELETE = _REMOVE

# Of the index KEYS[1] what is from ARGV[1] to ARGV[2], ARGV[3] keys at most: how many keys were looked at, and the last
# one; and of each item that is there its key, its beginning up to the end of the record's header, and its size.
LIST = f"""
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
local rows = {{#keys, keys[#keys] or ''}}
for _, key in ipairs(keys) do
  local start = redis.call('GETRANGE', key, 0, {HEAD + TOKEN - 1})
  if start == '' then
    redis.call('ZREM', KEYS[1], key)
  else
    local size = {TOKEN}
    if string.sub(start, {TOKEN + 1}, {TOKEN + 6}) == 'SFSS\\1\\0' and #start >= {TOKEN + PREFIX_SIZE} then
      size = {TOKEN + PREFIX_SIZE} + 256 * string.byte(start, {TOKEN + 7}) + string.byte(start, {TOKEN + 8})
    end
    if size > {HEAD + TOKEN} then start = redis.call('GETRANGE', key, 0, size - 1) end
    rows[#rows + 1] = key
    rows[#rows + 1] = string.sub(start, 1, size)
    rows[#rows + 1] = redis.call('STRLEN', key)
  end
end
return rows
"""
# Of ranges of the index, each two of ARGV, whether anything is in them. Where too many items have ended, it may be.
ANY = """
local found = {}
for n = 1, #ARGV, 2 do
  local any, looks = 0, 0
  while any == 0 do
    local key = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[n], ARGV[n + 1], 'LIMIT', 0, 1)[1]
    if not key then break end
    looks = looks + 1
    if looks > 1000 or redis.call('EXISTS', key) == 1 then any = 1 else redis.call('ZREM', KEYS[1], key) end
  end
  found[#found + 1] = any
end
return found
"""
# Keys that were found without the index go into it, if they are there still.
INDEX_ALL = """
for n = 2, #KEYS do
  if redis.call('EXISTS', KEYS[n]) == 1 then redis.call('ZADD', KEYS[1], 0, KEYS[n]) end
end
return 1
"""

# By the name under which a server knows one that was loaded.
SOURCES = {
    hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode(): source.encode()
    for source in (SET, ADD, REPLACE, REMOVE, DELETE, LIST, ANY, INDEX_ALL)
}
SET_SHA, ADD_SHA, REPLACE_SHA, REMOVE_SHA, DELETE_SHA, LIST_SHA, ANY_SHA, INDEX_ALL_SHA = SOURCES


def new_token() -> bytes:
    """Of 64 bits, which nobody has drawn before, nor will."""
    return secrets.token_bytes(TOKEN)


def token_of(item: bytes) -> int:
    """The token of an item, be it another program's."""
    return int.from_bytes(item[:TOKEN].ljust(TOKEN, b"\0"))
