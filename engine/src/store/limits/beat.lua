-- A node shows that it lives, and learns of the others. `engine/src/limit/protocol.rs` says what that means;
-- `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, beaten, what is recalled from this node.
-- ARGV: now ('' for the server's), node, generation, run_id, heard, share, restated (0, 1), leaves (0, 1),
--   a random number, silent, forget, then the members that the node knows of.

local function int(x) return string.format('%.0f', x) end

local generations, members, shares, awaited, dead, beaten, recalls = unpack(KEYS)
local node, theirs, run_id = ARGV[2], ARGV[3], ARGV[4]
local heard, share = tonumber(ARGV[5]), tonumber(ARGV[6])
local restated, leaves = ARGV[7] == '1', ARGV[8] == '1'
local silent, forget = tonumber(ARGV[10]), tonumber(ARGV[11])
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function recall_of(who) return 'sluice:limit:{nodes}:recall:' .. who end

-- It is lost until it comes.
local function expect(who)
    redis.call('ZADD', members, int(now - silent - 1), who)
    redis.call('HDEL', shares, who)
    redis.call('HSET', beaten, who, int(now))
    redis.call('SADD', awaited, who)
end

local function remove(who)
    redis.call('ZREM', members, who)
    redis.call('HDEL', shares, who)
    redis.call('HDEL', beaten, who)
    redis.call('DEL', recall_of(who))
end

-- What members but one do not claim of the whole; and whether something is not known.
local function claims(but)
    local others, unknown, unclaimed = 0, false, 1000000
    for _, who in ipairs(redis.call('ZRANGE', members, 0, -1)) do
        if who ~= but then
            others = others + 1
            local part = redis.call('HGET', shares, who)
            if part then unclaimed = unclaimed - tonumber(part) else unknown = true end
        end
    end
    return others, unknown, math.max(0, unclaimed)
end

local of = redis.call('HMGET', generations, 'id', 'run_id', 'now', 'settled', 'beaten')
local seen, settled = tonumber(of[3] or '0'), tonumber(of[4] or '0')
if seen > now then now = seen end
local generation, before = of[1], tonumber(of[5] or '0')
if not generation or of[2] ~= run_id then
    -- Another generation: what was is void.
    generation, before, settled = ARGV[9], now, 0
    for _, who in ipairs(redis.call('ZRANGE', members, 0, -1)) do
        redis.call('DEL', recall_of(who))
    end
    redis.call('DEL', members, shares, awaited, dead, beaten)
    for i = 12, #ARGV do expect(ARGV[i]) end
    if theirs ~= '0' then
        expect(node)
        settled = now + silent
    end
    redis.call('HSET', generations, 'id', generation, 'run_id', run_id, 'born', int(now),
        'settled', int(settled))
end
if now - before > silent then
    -- Nobody could be heard: that is nobody's silence.
    for _, who in ipairs(redis.call('HKEYS', beaten)) do redis.call('HSET', beaten, who, int(now)) end
end
redis.call('HSET', generations, 'now', int(now), 'beaten', int(now))
redis.call('HDEL', dead, node)
if theirs ~= generation and theirs ~= '0' then
    -- It comes from another generation, and tells whom this one may not know.
    local function learn(who)
        if not redis.call('ZSCORE', members, who) and redis.call('HEXISTS', dead, who) == 0 then
            expect(who)
        end
    end
    for i = 12, #ARGV do learn(ARGV[i]) end
    learn(node)
end

-- Those that were silent for too long.
local beats = redis.call('HGETALL', beaten)
for i = 1, #beats, 2 do
    if beats[i] ~= node and now - tonumber(beats[i + 1]) > forget then
        remove(beats[i])
        redis.call('SREM', awaited, beats[i])
    end
end
local buried = redis.call('HGETALL', dead)
for i = 1, #buried, 2 do
    if now - tonumber(string.match(buried[i + 1], '^%d+')) > forget then
        redis.call('HDEL', dead, buried[i])
        redis.call('SREM', awaited, buried[i])
    end
end

-- Earlier runs of the same node that are silent are dead.
local name = string.match(node, '^[^#]*')
local _, _, rest = claims('')
for _, who in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', '(' .. int(now - silent))) do
    if who ~= node and string.match(who, '^[^#]*') == name then
        local part = redis.call('HGET', shares, who)
        if not part then
            part = int(rest)
        elseif now - tonumber(redis.call('ZSCORE', members, who)) <= 2 * silent then
            -- So far it has gone by nothing but what it held.
            part = '0'
        end
        remove(who)
        redis.call('HSET', dead, who, int(now) .. ' ' .. part)
    end
end

local offer, was_lost = 0, false
if leaves then
    remove(node)
    redis.call('SREM', awaited, node)
else
    local good = restated and theirs == generation
    local last = redis.call('ZSCORE', members, node)
    if last then
        was_lost = now - heard > silent or (now - tonumber(last) > silent and not good)
    else
        -- It knows this server, and was forgotten.
        was_lost = theirs ~= '0'
    end
    if good and not was_lost then redis.call('SREM', awaited, node) end
    local others, unknown, unclaimed = claims(node)
    if unknown or now < settled then
        offer = share
    else
        offer = math.min(math.floor(1000000 / (others + 1)), unclaimed)
    end
    -- What it believes now, what it may believe once it has heard of this, and, if it may not have heard
    -- the last answer, what that has told.
    local most = math.max(share, offer)
    if heard < tonumber(redis.call('HGET', beaten, node) or '0') then
        most = math.max(most, tonumber(redis.call('HGET', shares, node) or '0'))
    end
    redis.call('HSET', shares, node, int(most))
    redis.call('HSET', beaten, node, int(now))
    if not was_lost then
        redis.call('ZADD', members, int(now), node)
    elseif not last then
        redis.call('ZADD', members, int(now - silent - 1), node)
    end
end
local recalled = redis.call('SMEMBERS', recalls)
redis.call('DEL', recalls)
return {int(now), generation, int(offer), was_lost and '1' or '0',
    redis.call('ZRANGE', members, 0, -1), recalled}
