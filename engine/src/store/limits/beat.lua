-- A node shows that it lives, and learns of the others. `engine/src/limit/protocol.rs` says what that means;
-- `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, beaten, what is recalled from this node.
-- ARGV: now ('' for the server's), node, generation, run_id, heard, share, gone, restated (0, 1),
--   leaves (0, 1), a random number, silent, forget, settle, then the members that the node knows of.

local function int(x) return string.format('%.0f', x) end

local generations, members, shares, awaited, dead, beaten, recalls = unpack(KEYS)
local node, theirs, run_id = ARGV[2], ARGV[3], ARGV[4]
local heard, share, said_gone = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local restated, leaves = ARGV[8] == '1', ARGV[9] == '1'
local silent, forget, settle = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local of = redis.call('HMGET', generations, 'id', 'run_id', 'now', 'settled', 'beaten', 'gone', 'bare')
local seen = tonumber(of[3] or '0')
if seen > now then now = seen end
local generation, settled, last_beat = of[1], tonumber(of[4] or '0'), tonumber(of[5] or '0')
-- When a member ended last, and one whose spending was never stated in this generation.
local gone, bare = tonumber(of[6] or '0'), tonumber(of[7] or '0')

-- What stands before the names of common keys.
local home = string.sub(generations, 1, -#'generation' - 1)
local function recall_of(who) return home .. 'recall:' .. who end

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

-- What members but one do not claim of the whole; how many they are; and whether something is not known.
local function claims(but)
    local others, unknown, unclaimed = 0, false, 1000000
    local all = redis.call('ZRANGE', members, 0, -1)
    if #all > 0 then
        for i, part in ipairs(redis.call('HMGET', shares, unpack(all))) do
            if all[i] ~= but then
                others = others + 1
                if part then unclaimed = unclaimed - tonumber(part) else unknown = true end
            end
        end
    end
    return math.max(0, unclaimed), others, unknown
end

if not generation or of[2] ~= run_id then
    -- Another generation: what was is void, but for whom it knew.
    generation, last_beat, settled, bare = ARGV[10], now, now + settle, gone
    local known = redis.call('ZRANGE', members, 0, -1)
    for _, who in ipairs(known) do redis.call('DEL', recall_of(who)) end
    redis.call('DEL', members, shares, awaited, dead, beaten)
    for _, who in ipairs(known) do expect(who) end
    redis.call('HSET', generations, 'id', generation, 'run_id', run_id, 'settled', int(settled))
end
local current = theirs == generation
local stranger = not current and theirs ~= '0'
if now - last_beat > silent then
    -- Nobody could be heard: that is nobody's silence.
    for _, who in ipairs(redis.call('HKEYS', beaten)) do redis.call('HSET', beaten, who, int(now)) end
end

-- It may have been taken for dead; or this is read late.
local was_dead = redis.call('HGET', dead, node)
if was_dead then redis.call('HDEL', dead, node) end
if stranger then
    -- It comes from another generation, and tells whom this one may not know.
    if said_gone < forget then
        bare = math.max(bare, now - said_gone)
        gone = math.max(gone, now - said_gone)
    end
    for i = 14, #ARGV do
        local who, known = ARGV[i], nil
        local score = redis.call('ZSCORE', members, who)
        if score then
            known = now - tonumber(score) <= silent or redis.call('SISMEMBER', awaited, who) == 1
        else
            known = redis.call('HEXISTS', dead, who) == 1
        end
        if not known then expect(who) end
    end
    expect(node)
end

-- One has ended by now, and what it has spent may not be known.
local rest = claims('')
local function finish(who)
    local score = redis.call('ZSCORE', members, who)
    if not score then return end
    local told = redis.call('HGET', shares, who) or int(rest)
    local answered = redis.call('HGET', beaten, who)
    remove(who)
    gone = now
    local text = table.concat({int(now), int(tonumber(score)), answered, told}, ' ')
    redis.call('HSET', dead, who, text)
end

-- Those that were silent for too long.
local beats = redis.call('HGETALL', beaten)
for i = 1, #beats, 2 do
    if beats[i] ~= node and now - tonumber(beats[i + 1]) > forget then finish(beats[i]) end
end
local buried = redis.call('HGETALL', dead)
for i = 1, #buried, 2 do
    if now - tonumber(string.match(buried[i + 1], '^%d+')) > forget then
        redis.call('HDEL', dead, buried[i])
    end
end
for _, who in ipairs(redis.call('SMEMBERS', awaited)) do
    local known = redis.call('ZSCORE', members, who) or redis.call('HEXISTS', dead, who) == 1
    if who ~= node and not known then
        redis.call('SREM', awaited, who)
    end
end

local fresh = current and heard <= now and now - heard <= silent
local last = redis.call('ZSCORE', members, node)
local lived = last and now - tonumber(last) <= silent
local offer, lives = 0, true
if leaves then
    if fresh and lived and redis.call('SISMEMBER', awaited, node) == 0 then
        remove(node)
        gone = now
    else
        finish(node)
    end
else
    restated = restated and current
    lives = fresh and last and (lived or restated)
    if restated and lives then redis.call('SREM', awaited, node) end
    if lives then
        -- Earlier runs of a node that lives are dead if they are silent.
        local name, long = string.match(node, '^[^#]*'), '(' .. int(now - silent)
        for _, who in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', long)) do
            if who ~= node and string.match(who, '^[^#]*') == name then finish(who) end
        end
    end
    local unclaimed, others, unknown = claims(node)
    if stranger or unknown or now < settled then
        offer = share
    else
        offer = math.min(math.floor(1000000 / (others + 1)), unclaimed)
    end
    local have = redis.call('HGET', shares, node)
    local dead_heard, dead_share
    if was_dead then dead_heard, dead_share = string.match(was_dead, '^%d+ (%d+) %d+ (%d+)$') end
    if last and not current and not have then
        -- What it says belongs to another generation, or to none.
        have = nil
    else
        -- What it believes now, what it may believe once it has heard of this, and, if it may not have
        -- heard the last answer, what that has told.
        local most = math.max(share, offer)
        if last then
            if heard < tonumber(redis.call('HGET', beaten, node)) then
                most = math.max(most, tonumber(have or '0'))
            end
        elseif dead_share then
            most = math.max(most, tonumber(dead_share))
        end
        redis.call('HSET', shares, node, int(most))
    end
    redis.call('HSET', beaten, node, int(now))
    if lives then
        redis.call('ZADD', members, int(now), node)
    elseif not last then
        -- The next beat proves that it hears.
        local since = now - silent - 1
        if theirs ~= '0' then since = tonumber(dead_heard) or math.max(0, now - forget) end
        redis.call('ZADD', members, int(since), node)
    end
end
local watch = redis.call('SCARD', awaited) + redis.call('HLEN', dead) > 0 and '1' or '0'
redis.call('HSET', generations, 'now', int(now), 'beaten', int(now), 'gone', int(gone),
    'bare', int(bare), 'watch', watch, 'count', redis.call('ZCARD', members))
local age = forget
if gone > 0 then age = math.min(now - gone, forget) end
local recalled = redis.call('SMEMBERS', recalls)
if #recalled > 0 then redis.call('DEL', recalls) end
return {int(now), generation, int(offer), lives and '0' or '1',
    redis.call('ZRANGE', members, 0, -1), recalled, int(age)}
