-- A node shows that it lives, and learns of the others. `engine/src/limit/protocol.rs` says what that means;
-- `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, what is recalled from this node.
-- ARGV: now ('' for the server's), node, generation, run_id, heard, share, restated (0, 1), leaves (0, 1),
--   a random number, silent, forget, then the members that the node knows of.

local function int(x) return string.format('%.0f', x) end

local generations, members, shares, awaited, dead, recalls = unpack(KEYS)
local node, theirs, run_id = ARGV[2], ARGV[3], ARGV[4]
local heard, share = tonumber(ARGV[5]), tonumber(ARGV[6])
local restated, leaves = ARGV[7] == '1', ARGV[8] == '1'
local silent, forget = tonumber(ARGV[10]), tonumber(ARGV[11])
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local of = redis.call('HMGET', generations, 'id', 'run_id', 'now')
local seen = tonumber(of[3] or '0')
if seen > now then now = seen end
local generation = of[1]
local function await(who, anew)
    redis.call('SADD', awaited, who)
    -- Lost until it comes.
    if anew then redis.call('ZADD', members, int(now - silent - 1), who) end
end
if not generation or of[2] ~= run_id then
    -- Another generation: what was is void.
    generation = ARGV[9]
    for _, who in ipairs(redis.call('ZRANGE', members, 0, -1)) do
        redis.call('DEL', 'sluice:limit:{nodes}:recall:' .. who)
    end
    redis.call('DEL', members, shares, awaited, dead)
    redis.call('HSET', generations, 'id', generation, 'run_id', run_id, 'born', int(now))
    for i = 12, #ARGV do await(ARGV[i], true) end
    if theirs ~= '0' then await(node, false) end
end
redis.call('HSET', generations, 'now', int(now))
if theirs ~= generation and theirs ~= '0' then
    -- It comes from another generation, and tells whom this one may not know.
    for i = 12, #ARGV do
        local who = ARGV[i]
        if who ~= node and not redis.call('ZSCORE', members, who)
            and redis.call('HEXISTS', dead, who) == 0 then
            await(who, true)
        end
    end
end

local function remove(who)
    redis.call('ZREM', members, who)
    redis.call('HDEL', shares, who)
end
for _, who in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', '(' .. int(now - forget))) do
    if who ~= node then remove(who) end
end
local buried = redis.call('HGETALL', dead)
for i = 1, #buried, 2 do
    if now - tonumber(buried[i + 1]) > forget then redis.call('HDEL', dead, buried[i]) end
end
-- Earlier runs of the same node that are silent are dead.
local name = string.match(node, '^[^#]*')
for _, who in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', '(' .. int(now - silent))) do
    if who ~= node and string.match(who, '^[^#]*') == name then
        remove(who)
        redis.call('SREM', awaited, who)
        redis.call('DEL', 'sluice:limit:{nodes}:recall:' .. who)
        redis.call('HSET', dead, who, int(now))
    end
end

local offer, was_lost = 0, false
if leaves then
    remove(node)
    redis.call('SREM', awaited, node)
    redis.call('DEL', recalls)
else
    local good = restated and theirs == generation
    local last = redis.call('ZSCORE', members, node)
    if last then
        local silently = now - tonumber(last) > silent
        was_lost = now - heard > silent or (silently and not good)
    end
    if good and not was_lost then redis.call('SREM', awaited, node) end
    -- What it believes now, and what it may believe once it has heard of this.
    local others, unknown, claimed = 0, false, 0
    for _, who in ipairs(redis.call('ZRANGE', members, 0, -1)) do
        if who ~= node then
            others = others + 1
            local part = redis.call('HGET', shares, who)
            if part then claimed = claimed + tonumber(part) else unknown = true end
        end
    end
    if unknown then
        offer = share
    else
        offer = math.min(math.floor(1000000 / (others + 1)), math.max(0, 1000000 - claimed))
    end
    redis.call('HSET', shares, node, int(math.max(share, offer)))
    if not (was_lost and last) then redis.call('ZADD', members, int(now), node) end
end
local recalled = redis.call('SMEMBERS', recalls)
redis.call('DEL', recalls)
return {int(now), generation, int(offer), was_lost and '1' or '0',
    redis.call('ZRANGE', members, 0, -1), recalled}
