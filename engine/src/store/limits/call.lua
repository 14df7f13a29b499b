-- Judges statements of one node about buckets, and grants. `engine/src/limit/protocol.rs` says what they
-- mean; `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, then a bucket for each statement.
-- ARGV: now ('' for the server's), node, generation, heard, silent, forget, then for each statement:
--   limit, kind (s, u, c), window or end, slot, reach, seq, hold, need, waiting, want,
--   number of spent, then age and tokens of each.
-- Without the first five keys (a cluster, where they are elsewhere) `generation` is '': then the number of
-- nodes stands in place of `heard`, and nothing is known of members.

local function int(x) return string.format('%.0f', x) end

local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local node, generation, silent = ARGV[2], ARGV[3], tonumber(ARGV[5])
local alone = generation == ''
local sharers, lost, restored, born = 1, false, true, 0
local gone, unclaimed, dead = {}, 0, false

if alone then
    sharers = math.max(1, tonumber(ARGV[4]))
else
    local of = redis.call('HMGET', KEYS[1], 'id', 'born', 'now')
    -- A clock that goes back stands still.
    local seen = tonumber(of[3] or '0')
    if seen > now then now = seen else if of[1] then redis.call('HSET', KEYS[1], 'now', int(now)) end end
    if of[1] ~= generation then return {'g', int(now), of[1] or '0'} end
    born = tonumber(of[2])
    local heard = redis.call('ZSCORE', KEYS[2], node)
    if not heard or now - tonumber(ARGV[4]) > silent then return {'u', int(now)} end
    lost = now - tonumber(heard) > silent
    if not lost then redis.call('ZADD', KEYS[2], int(now), node) end
    sharers = redis.call('ZCARD', KEYS[2])
    restored = redis.call('EXISTS', KEYS[4]) == 0
    gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. int(now - silent))
    dead = redis.call('EXISTS', KEYS[5]) == 1
    if #gone > 0 then
        unclaimed = 1000000
        for _, share in ipairs(redis.call('HVALS', KEYS[3])) do unclaimed = unclaimed - tonumber(share) end
        if unclaimed < 0 then unclaimed = 0 end
    end
end

local answer = {'v', int(now)}
local at = 7
local next_key = alone and 1 or 6

local function judge(key)
    local limit, kind, window = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
    local slot_ms, reach = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local seq, hold = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
    local need, waiting, want = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])
    local count = tonumber(ARGV[at + 10])
    local spent_at = at + 11
    at = spent_at + 2 * count
    local mine, said = 'held:' .. node, 'seq:' .. node
    local have = redis.call('HMGET', key, 'gen', 'used', 'held', 'oldest', mine, said)
    if have[1] and have[1] ~= generation then
        redis.call('DEL', key)
        have = {}
    end
    local used, held = tonumber(have[2] or '0'), tonumber(have[3] or '0')
    local oldest = tonumber(have[4] or '-1')
    local own, last = tonumber(have[5] or '0'), tonumber(have[6] or '0')

    -- Slots before this one have left the window.
    local first = 0
    if kind == 's' then
        first = math.floor((now - window) / slot_ms)
        if used > 0 and oldest >= 0 and oldest < first then
            local left = {}
            if first - oldest > 64 then
                local all = redis.call('HGETALL', key)
                for i = 1, #all, 2 do
                    local slot = tonumber(all[i])
                    if slot and slot < first then
                        used = used - tonumber(all[i + 1])
                        left[#left + 1] = all[i]
                    end
                end
            else
                local slots = {}
                for slot = oldest, first - 1 do slots[#slots + 1] = int(slot) end
                for i, tokens in ipairs(redis.call('HMGET', key, unpack(slots))) do
                    if tokens then
                        used = used - tonumber(tokens)
                        left[#left + 1] = slots[i]
                    end
                end
            end
            for i = 1, #left, 1000 do
                redis.call('HDEL', key, unpack(left, i, math.min(i + 999, #left)))
            end
            oldest = first
        end
        if used <= 0 then used, oldest = 0, -1 end
    end

    local function spend(time, tokens)
        if tokens <= 0 or kind == 'c' then return end
        local slot = 0
        if kind == 's' then
            slot = math.floor(math.min(time, now) / slot_ms)
            if slot < first then return end
        end
        redis.call('HINCRBY', key, int(slot), int(tokens))
        used = used + tokens
        if oldest < 0 or slot < oldest then oldest = slot end
    end

    -- How long until so many of what was spent have left the window.
    local function frees(tokens)
        if used <= 0 then return 0 end
        if kind == 'u' then return math.max(0, window - now) end
        if kind == 'c' then return 0 end
        local missing = math.max(1, math.min(tokens, used))
        local slot, newest, found = oldest, math.floor(now / slot_ms), -1
        while slot <= newest do
            local slots = {}
            for s = slot, math.min(slot + 63, newest) do slots[#slots + 1] = int(s) end
            for i, count in ipairs(redis.call('HMGET', key, unpack(slots))) do
                if count then
                    if found < 0 then
                        found = slot + i - 1
                        oldest = found
                    end
                    missing = missing - tonumber(count)
                    if missing <= 0 then
                        return math.max(0, (slot + i) * slot_ms + window - now)
                    end
                end
            end
            slot = slot + 64
        end
        return 0
    end

    -- Everybody else who holds something.
    local others
    local function holders()
        if others then return others end
        others = {}
        if held - own > 0 then
            local all = redis.call('HGETALL', key)
            for i = 1, #all, 2 do
                local who = string.match(all[i], '^held:(.*)$')
                if who and who ~= node and tonumber(all[i + 1]) > 0 then
                    others[who] = tonumber(all[i + 1])
                end
            end
        end
        return others
    end
    local function bury()
        for who, tokens in pairs(holders()) do
            local when = redis.call('HGET', KEYS[5], who)
            if when or not redis.call('ZSCORE', KEYS[2], who) then
                redis.call('HDEL', key, 'held:' .. who, 'seq:' .. who)
                held = held - tokens
                others[who] = nil
                if when then spend(tonumber(when), tokens) end
            end
        end
    end
    if dead then bury() end

    local kept = 0
    for _, who in ipairs(gone) do
        if who ~= node then
            local share = tonumber(redis.call('HGET', KEYS[3], who) or unclaimed)
            local holds = tonumber(redis.call('HGET', key, 'held:' .. who) or '0')
            kept = kept + math.max(0, math.floor(limit * share / 1000000) - holds)
        end
    end

    local whole = window
    if kind == 's' then whole = window + slot_ms + reach elseif kind == 'c' then whole = 0 end
    local restoring = lost or not (restored or (kind ~= 'u' and now - born >= whole))
    local granted, fair, frees_ms = 0, 0, 0
    local stale = seq <= last
    if not stale then
        held = held - own + hold
        own = hold
        for i = spent_at, spent_at + 2 * count - 1, 2 do
            spend(math.max(0, now - tonumber(ARGV[i])), tonumber(ARGV[i + 1]))
        end
        local left = math.max(0, limit - used - held - kept)
        if left < need and not alone and held - own > 0 then
            bury()
            left = math.max(0, limit - used - held - kept)
        end
        fair = math.floor((left + own) / sharers)
        if not restoring and left >= need then
            granted = math.min(want, math.max(0, fair - own))
            granted = math.min(math.max(granted, waiting, need), left)
            own = own + granted
            held = held + granted
        end
        frees_ms = frees(need)
        if granted < need and not alone then
            for who, _ in pairs(holders()) do
                local heard = redis.call('ZSCORE', KEYS[2], who)
                if heard and now - tonumber(heard) <= silent then
                    local recall = 'sluice:limit:{nodes}:recall:' .. who
                    redis.call('SADD', recall, key)
                    redis.call('PEXPIRE', recall, 60000)
                end
            end
        end
        redis.call('HSET', key, 'gen', generation, 'used', int(used), 'held', int(held),
            'oldest', int(oldest), mine, int(own), said, int(seq))
        local keep = 1000
        if kind == 's' then keep = window + 2 * slot_ms + 1000 end
        if kind == 'u' then keep = math.max(0, window - now) + 3600000 end
        if held > 0 then keep = keep + tonumber(ARGV[6]) end
        redis.call('PEXPIRE', key, int(keep))
    else
        redis.call('HSET', key, 'used', int(used), 'held', int(held), 'oldest', int(oldest))
    end
    local flags = (stale and 1 or 0) + (restoring and 2 or 0)
    for _, value in ipairs({granted, fair, used, held + kept, frees_ms, flags}) do
        answer[#answer + 1] = int(value)
    end
end

for i = next_key, #KEYS do judge(KEYS[i]) end
return answer
