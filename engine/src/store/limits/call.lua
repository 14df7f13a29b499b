-- Judges statements of one node about buckets, and grants. `engine/src/limit/protocol.rs` says what they
-- mean; `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, beaten, then a bucket for each statement.
-- ARGV: now ('' for the server's), node, generation, heard, silent, forget, then for each statement:
--   limit, kind (s, u, c), window or end, slot, reach, seq, hold, need, waiting, want,
--   number of spent, then age and tokens of each.

-- Buckets of no more fields than this are read whole; so are no more members than these.
local SMALL, FEW = 64, 16

local function int(x) return string.format('%.0f', x) end

-- A part of a limit, without leaving what a number can hold.
local function part(limit, share)
    local millions = math.floor(limit / 1000000)
    return millions * share + math.floor((limit - millions * 1000000) * share / 1000000)
end

local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local node, generation = ARGV[2], ARGV[3]
local silent, forget = tonumber(ARGV[5]), tonumber(ARGV[6])
-- What stands before the names of common keys.
local home = string.sub(KEYS[1], 1, -#'generation' - 1)

-- All members and when each was heard, once somebody wants to know.
local members, heard_ms
local function all_members()
    if members then return end
    members, heard_ms = {}, {}
    local scores = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
    for i = 1, #scores, 2 do
        members[#members + 1] = scores[i]
        heard_ms[scores[i]] = tonumber(scores[i + 1])
    end
end

local of = redis.call('HMGET', KEYS[1], 'id', 'now', 'settled', 'bare', 'watch', 'count')
-- A clock that goes back stands still.
local seen = tonumber(of[2] or '0')
if seen > now then
    now = seen
elseif of[1] and now > seen then
    redis.call('HSET', KEYS[1], 'now', int(now))
end
if of[1] ~= generation then return {'g', int(now), of[1] or '0'} end
local settled, bare = tonumber(of[3]), tonumber(of[4])
-- The score of this node, and of the one that was heard longest ago.
local own, oldest
local sharers = tonumber(of[6])
if sharers <= FEW then
    all_members()
    own, oldest = heard_ms[node], heard_ms[members[1]]
else
    own = tonumber(redis.call('ZSCORE', KEYS[2], node) or nil)
    oldest = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2])
end
local heard = tonumber(ARGV[4])
if not own or heard > now or now - heard > silent then return {'u', int(now)} end
local lost = now - own > silent
if lost then
    redis.call('HSET', KEYS[6], node, int(now))
elseif now > own then
    redis.call('ZADD', KEYS[2], int(now), node)
    if heard_ms then heard_ms[node] = now end
end
-- Whether any member is lost.
local some_lost = now - oldest > silent
-- Who is awaited, and when it was answered last (-1: it is no member any more); who is dead. As a rule
-- nobody.
local awaited, dead = {}, {}
if of[5] == '1' then
    for _, who in ipairs(redis.call('SMEMBERS', KEYS[4])) do
        local member = redis.call('ZSCORE', KEYS[2], who)
        awaited[who] = member and tonumber(redis.call('HGET', KEYS[6], who)) or -1
    end
    local buried = redis.call('HGETALL', KEYS[5])
    for i = 1, #buried, 2 do
        local at, last, beaten, share = string.match(buried[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
        dead[buried[i]] = {at = tonumber(at), heard = tonumber(last), beaten = tonumber(beaten),
            share = tonumber(share)}
    end
end

local function is_lost(who) return now - heard_ms[who] > silent end

-- Other members that are lost, each with its part, if that is known; what nobody claims is for all the
-- rest of them.
local gone, unclaimed = {}, 1000000
if some_lost then
    all_members()
    for i, share in ipairs(redis.call('HMGET', KEYS[3], unpack(members))) do
        local who = members[i]
        share = share and tonumber(share)
        unclaimed = unclaimed - (share or 0)
        if who ~= node and is_lost(who) then gone[#gone + 1] = {who = who, share = share} end
    end
    unclaimed = math.max(0, unclaimed)
end

-- Whether someone may have spent or hold something that is not known here.
local function is_restoring(kind, whole)
    if now < settled then return true end
    local waited = 0
    if kind == 's' then waited = math.min(whole, forget) elseif kind == 'u' then waited = forget end
    if bare > 0 and now - bare < waited then return true end
    -- By then it goes by its part at most, and did so for a window.
    local calm = 2 * silent + waited
    for who, beaten in pairs(awaited) do
        local one = dead[who]
        if beaten >= 0 then
            if now - beaten < calm then return true end
        elseif one and now - one.at < waited and one.at - one.beaten < calm then
            return true
        end
    end
    return false
end

local answer = {'v', int(now)}
local at = 7

local function judge(key)
    local limit, kind, window = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
    local slot_ms, reach = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local seq, hold = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
    local need, waiting, want = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9])
    local count = tonumber(ARGV[at + 10])
    local spent_at = at + 11
    at = spent_at + 2 * count
    local whole = kind == 's' and window + slot_ms + reach or 0
    local mine, said = 'held:' .. node, 'seq:' .. node

    -- All fields, where they were read.
    local fields
    local function read_all()
        if fields then return fields end
        fields = {}
        local all = redis.call('HGETALL', key)
        for i = 1, #all, 2 do fields[all[i]] = all[i + 1] end
        return fields
    end
    local function read(names)
        if not fields then return redis.call('HMGET', key, unpack(names)) end
        local values = {}
        for i, name in ipairs(names) do values[i] = fields[name] or false end
        return values
    end
    local function drop(names)
        for i = 1, #names, 1000 do
            redis.call('HDEL', key, unpack(names, i, math.min(i + 999, #names)))
        end
        if fields then for _, name in ipairs(names) do fields[name] = nil end end
    end

    local size = redis.call('HLEN', key)
    if size == 0 then fields = {} elseif size <= SMALL then read_all() end
    local have = read({'gen', 'used', 'held', 'oldest', mine, said})
    if have[1] and have[1] ~= generation then
        redis.call('DEL', key)
        have, fields, size = {}, {}, 0
    end
    local own, last = tonumber(have[5] or '0'), tonumber(have[6] or '0')
    if seq <= last then
        -- Read late: nothing is done.
        for _, value in ipairs({0, 0, 0, 0, 0, 1}) do answer[#answer + 1] = int(value) end
        return
    end
    local used, held = tonumber(have[2] or '0'), tonumber(have[3] or '0')
    -- No slot before this one has anything.
    local oldest = tonumber(have[4] or '-1')

    -- Slots before this one have left the window.
    local first = 0
    if kind == 's' then
        first = math.floor((now - window) / slot_ms)
        if used > 0 and oldest < first then
            local left = {}
            if first - oldest > SMALL then read_all() end
            if fields then
                for name, tokens in pairs(fields) do
                    local slot = tonumber(name)
                    if slot and slot < first then
                        used = used - tonumber(tokens)
                        left[#left + 1] = name
                    end
                end
            else
                local slots = {}
                for slot = oldest, first - 1 do slots[#slots + 1] = int(slot) end
                for i, tokens in ipairs(read(slots)) do
                    if tokens then
                        used = used - tonumber(tokens)
                        left[#left + 1] = slots[i]
                    end
                end
            end
            drop(left)
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
        local sum = redis.call('HINCRBY', key, int(slot), int(tokens))
        if fields then fields[int(slot)] = int(sum) end
        used = used + tokens
        if oldest < 0 or slot < oldest then oldest = slot end
    end

    -- How long until so many of what was spent have left the window.
    local function frees(tokens)
        if used <= 0 or kind == 'c' then return 0 end
        if kind == 'u' then return math.max(0, window - now) end
        local missing = math.max(1, math.min(tokens, used))
        local newest = math.floor(now / slot_ms)
        local function leaves(slot) return (slot + 1) * slot_ms + window - now end
        if fields then
            local slots = {}
            for name in pairs(fields) do slots[#slots + 1] = tonumber(name) end
            table.sort(slots)
            if slots[1] then oldest = slots[1] end
            for _, slot in ipairs(slots) do
                missing = missing - tonumber(fields[int(slot)])
                if missing <= 0 then return leaves(slot) end
            end
            return 0
        end
        -- The first is near, as a rule.
        local found, from, most = false, oldest, 4
        while from <= newest do
            local slots = {}
            for slot = from, math.min(from + most - 1, newest) do slots[#slots + 1] = int(slot) end
            for i, tokens in ipairs(read(slots)) do
                if tokens then
                    if not found then found, oldest = true, from + i - 1 end
                    missing = missing - tonumber(tokens)
                    if missing <= 0 then return leaves(from + i - 1) end
                end
            end
            from, most = from + #slots, math.min(most * 4, SMALL)
        end
        return 0
    end

    -- Members but this node that hold something.
    local function holders()
        local names, others, sum = {}, {}, 0
        all_members()
        for _, who in ipairs(members) do names[#names + 1] = 'held:' .. who end
        for i, tokens in ipairs(read(names)) do
            tokens = tonumber(tokens or '0')
            if members[i] ~= node and tokens > 0 then
                others[members[i]] = tokens
                sum = sum + tokens
            end
        end
        return others, sum
    end

    -- What the dead held counts as spent when they ended. Who is not even known for dead any more has
    -- ended long ago.
    local function bury()
        if held - own <= 0 then return end
        local _, sum = holders()
        if held - own - sum <= 0 then return end
        local names, spent = {}, {}
        for name, tokens in pairs(read_all()) do
            local who = string.match(name, '^held:(.*)$')
            tokens = who and tonumber(tokens) or 0
            if who and who ~= node and not heard_ms[who] then
                local time = dead[who] and dead[who].at or math.max(0, now - forget)
                names[#names + 1] = name
                held = held - tokens
                spent[#spent + 1] = {time, tokens}
            end
        end
        drop(names)
        for _, one in ipairs(spent) do spend(one[1], one[2]) end
    end

    local kept = 0
    -- Of a calendar's period they go by nothing else; of a long window not before they stop.
    if kind ~= 'u' and whole < forget then
        local unknown
        for _, one in ipairs(gone) do
            local holds = tonumber(read({'held:' .. one.who})[1] or '0')
            if one.share then
                kept = kept + math.max(0, part(limit, one.share) - holds)
            else
                unknown = (unknown or 0) + holds
            end
        end
        if unknown then kept = kept + math.max(0, part(limit, unclaimed) - unknown) end
        for _, one in pairs(dead) do
            -- Before that it has gone by nothing but what it held.
            if now - one.at < whole and one.at - one.heard > silent + whole then
                kept = kept + part(limit, one.share)
            end
        end
    end

    local restoring = lost or is_restoring(kind, whole)
    local granted, fair, frees_ms = 0, 0, 0
    held = held - own + hold
    own = hold
    for i = spent_at, spent_at + 2 * count - 1, 2 do
        spend(math.max(0, now - tonumber(ARGV[i])), tonumber(ARGV[i + 1]))
    end
    local left = math.max(0, limit - used - held - kept)
    if left < need then
        bury()
        left = math.max(0, limit - used - held - kept)
    end
    local missing = math.max(0, need - left)
    fair = math.floor((left + own) / sharers)
    if not restoring and missing == 0 then
        granted = math.min(want, math.max(0, fair - own))
        granted = math.min(math.max(granted, waiting, need), left)
        own = own + granted
        held = held + granted
    end
    frees_ms = frees(missing)
    if granted < need and held - own > 0 then
        for who in pairs(holders()) do
            if not is_lost(who) then
                local recall = home .. 'recall:' .. who
                -- It may fail while a cluster moves the slot: what is written below must not fail with it.
                if redis.pcall('SADD', recall, key) == 1 then
                    redis.pcall('PEXPIRE', recall, 60000)
                end
            end
        end
    end
    redis.call('HSET', key, 'gen', generation, 'used', int(used), 'held', int(held),
        'oldest', int(oldest), mine, int(own), said, int(seq))
    local keep = 1000
    if kind == 's' then keep = window + 2 * slot_ms + 1000 end
    if kind == 'u' then keep = math.max(0, window - now) + 3600000 end
    if held > 0 then keep = keep + 2 * forget end
    redis.call('PEXPIRE', key, int(keep))

    -- What nodes have said that are gone for good.
    if size > 2 * SMALL + 512 + 2 * sharers then
        all_members()
        local names = {}
        for name in pairs(read_all()) do
            local who = string.match(name, '^seq:(.*)$')
            if who and not heard_ms[who] then
                names[#names + 1] = name
                if tonumber(fields['held:' .. who] or '0') == 0 then
                    names[#names + 1] = 'held:' .. who
                end
            end
        end
        drop(names)
    end

    local flags = restoring and 2 or 0
    for _, value in ipairs({granted, fair, used, held + kept, frees_ms, flags}) do
        answer[#answer + 1] = int(value)
    end
end

for i = 7, #KEYS do judge(KEYS[i]) end
return answer
