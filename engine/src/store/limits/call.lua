-- Judges statements of one node about buckets, and grants. `engine/src/limit/protocol.rs` says what they
-- mean; `server.rs` beside it does the same in Rust.
--
-- KEYS: generation, members, shares, awaited, dead, then a bucket for each statement.
-- ARGV: now ('' for the server's), node, generation, heard, silent, forget, then for each statement:
--   limit, kind (s, u, c), window or end, slot, reach, seq, hold, need, waiting, want,
--   number of spent, then age and tokens of each.
-- Without the first five keys (a cluster, where they are elsewhere) `generation` is '': then the number of
-- nodes stands in place of `heard`, and nothing is known of members.

-- Buckets of no more fields than this are read whole.
local SMALL = 64

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
local alone = generation == ''
-- Members and when they were heard, in what order; who is dead, when and with what part; who is awaited.
local heard_ms, members, dead, awaited = {}, {}, {}, {}
local sharers, lost, born, settled, unclaimed = 1, false, 0, 0, 0

if alone then
    sharers = math.max(1, tonumber(ARGV[4]))
else
    local of = redis.call('HMGET', KEYS[1], 'id', 'born', 'now', 'settled')
    -- A clock that goes back stands still.
    local seen = tonumber(of[3] or '0')
    if seen > now then now = seen elseif of[1] then redis.call('HSET', KEYS[1], 'now', int(now)) end
    if of[1] ~= generation then return {'g', int(now), of[1] or '0'} end
    born, settled = tonumber(of[2]), tonumber(of[4])
    local scores = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
    for i = 1, #scores, 2 do
        members[#members + 1] = scores[i]
        heard_ms[scores[i]] = tonumber(scores[i + 1])
    end
    local own = heard_ms[node]
    if not own or now - tonumber(ARGV[4]) > silent then return {'u', int(now)} end
    lost = now - own > silent
    if not lost then
        redis.call('ZADD', KEYS[2], int(now), node)
        heard_ms[node] = now
    end
    sharers = #members
    awaited = redis.call('SMEMBERS', KEYS[4])
    local buried = redis.call('HGETALL', KEYS[5])
    for i = 1, #buried, 2 do
        local at, share = string.match(buried[i + 1], '^(%d+) (%d+)$')
        dead[buried[i]] = {at = tonumber(at), share = tonumber(share)}
    end
end

local function is_lost(who) return now - heard_ms[who] > silent end

-- What lost members may go by, each with its part.
local gone = {}
for _, who in ipairs(members) do
    if who ~= node and is_lost(who) then gone[#gone + 1] = who end
end
if #gone > 0 then
    local shares = redis.call('HMGET', KEYS[3], unpack(members))
    local part_of = {}
    unclaimed = 1000000
    for i, who in ipairs(members) do
        part_of[who] = tonumber(shares[i] or nil)
        unclaimed = unclaimed - (part_of[who] or 0)
    end
    unclaimed = math.max(0, unclaimed)
    for i, who in ipairs(gone) do gone[i] = {who = who, share = part_of[who] or unclaimed} end
end

-- Whether someone may have spent or hold something that is not known here.
local function is_restoring(kind, whole)
    if now < settled then return true end
    for _, who in ipairs(awaited) do
        local since, wait = heard_ms[who], 0
        if since then
            if kind == 'u' then return true end
            wait = 2 * silent + whole
        elseif dead[who] then
            -- Who is dead will never state it.
            since = dead[who].at
            if kind == 's' then wait = 2 * silent + whole end
        end
        if since and now - math.max(since, born) < wait then return true end
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
    local used, held = tonumber(have[2] or '0'), tonumber(have[3] or '0')
    -- No slot before this one has anything.
    local oldest = tonumber(have[4] or '-1')
    local own, last = tonumber(have[5] or '0'), tonumber(have[6] or '0')

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
        local found = false
        for from = oldest, newest, SMALL do
            local slots = {}
            for slot = from, math.min(from + SMALL - 1, newest) do slots[#slots + 1] = int(slot) end
            for i, tokens in ipairs(read(slots)) do
                if tokens then
                    if not found then found, oldest = true, from + i - 1 end
                    missing = missing - tonumber(tokens)
                    if missing <= 0 then return leaves(from + i - 1) end
                end
            end
        end
        return 0
    end

    -- Members but this node that hold something.
    local function holders()
        local names, others, sum = {}, {}, 0
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

    -- What the dead held counts as spent when they were replaced. Of whom nothing is known any more was
    -- not heard for long, and has spent what it held before.
    local function bury()
        if held - own <= 0 then return end
        local _, sum = holders()
        if held - own - sum <= 0 then return end
        local names, spent = {}, {}
        for name, tokens in pairs(read_all()) do
            local who = string.match(name, '^held:(.*)$')
            tokens = who and tonumber(tokens) or 0
            if who and who ~= node then
                local time = dead[who] and dead[who].at
                if alone then
                    -- It would have stated it anew since then.
                    local stated = tonumber(fields['at:' .. who] or '0')
                    if now - stated > forget then time = stated + 2 * silent end
                elseif not heard_ms[who] and not time then
                    time = math.max(0, now - (forget - 2 * silent))
                end
                if time then
                    names[#names + 1] = name
                    names[#names + 1] = 'seq:' .. who
                    names[#names + 1] = 'at:' .. who
                    held = held - tokens
                    spent[#spent + 1] = {time, tokens}
                end
            end
        end
        drop(names)
        for _, one in ipairs(spent) do spend(one[1], one[2]) end
    end
    if next(dead) then bury() end

    local kept = 0
    if kind ~= 'u' then
        for _, one in ipairs(gone) do
            local holds = tonumber(read({'held:' .. one.who})[1] or '0')
            kept = kept + math.max(0, part(limit, one.share) - holds)
        end
        for _, one in pairs(dead) do
            if now - one.at < whole then kept = kept + part(limit, one.share) end
        end
    end

    local restoring = lost or is_restoring(kind, whole)
    local granted, fair, frees_ms = 0, 0, 0
    local stale = seq <= last
    if not stale then
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
                    local recall = 'sluice:limit:{nodes}:recall:' .. who
                    redis.call('SADD', recall, key)
                    redis.call('PEXPIRE', recall, 60000)
                end
            end
        end
        redis.call('HSET', key, 'gen', generation, 'used', int(used), 'held', int(held),
            'oldest', int(oldest), mine, int(own), said, int(seq))
        if alone then redis.call('HSET', key, 'at:' .. node, int(now)) end
        local keep = 1000
        if kind == 's' then keep = window + 2 * slot_ms + 1000 end
        if kind == 'u' then keep = math.max(0, window - now) + 3600000 end
        if held > 0 then keep = keep + forget end
        redis.call('PEXPIRE', key, int(keep))
    elseif last > 0 then
        redis.call('HSET', key, 'used', int(used), 'held', int(held), 'oldest', int(oldest))
    end

    -- What nodes have said that are gone for good.
    if not alone and size > 2 * SMALL + 512 + 2 * #members then
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

    local flags = (stale and 1 or 0) + (restoring and 2 or 0)
    for _, value in ipairs({granted, fair, used, held + kept, frees_ms, flags}) do
        answer[#answer + 1] = int(value)
    end
end

for i = alone and 1 or 6, #KEYS do judge(KEYS[i]) end
return answer
