-- The seats of one licence, over all gateways. Each call is one step.
--
-- KEYS: what all keys of the licence begin with; they are all of one hash slot.
-- ARGV: operation, owner, and the operation's own arguments.
--
-- An owner is a gateway in one of its lives. It lives until its lease ends, by the engine's clock;
-- its seats end with it, all at once. Classes are 'e' and 'v'.
--
--   owners            owner -> instant at which its lease ends, milliseconds
--   dead              owners whose seats are void, and still to be cleared away
--   count             'e', 'v' -> connections of the class; 'OWNER:e' -> those of one owner;
--                     'OWNER:sum' -> the sum of its seats' numbers within the owner
--   seats:OWNER       seat -> its facts
--   opens:OWNER       seat -> class and user that it holds in reserve
--   sessions          user and session id -> owner and seat
--   grace:CLASS       owner and seat -> until when it is kept; grace:CLASS:OWNER the same of one
--   users:CLASS       user -> instant until which they are counted, seconds
--   user:CLASS        user -> place in the order of first counting, anonymous
--   holds:CLASS       user -> opens under way
--   reserve:CLASS     user with an open under way -> until when they are counted besides
--   meta              places, users (grows with every change of the users)
local prefix, operation, owner = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local second = tonumber(time[1])
local classes = { 'e', 'v' }

local function call(command, name, ...) return redis.call(command, prefix .. name, ...) end

local function drop_hold(class, user)
  if call('HINCRBY', 'holds:' .. class, user, -1) <= 0 then
    call('HDEL', 'holds:' .. class, user)
    call('ZREM', 'reserve:' .. class, user)
  end
end

local function add_hold(class, user)
  if call('HINCRBY', 'holds:' .. class, user, 1) == 1 then
    call('ZADD', 'reserve:' .. class, call('ZSCORE', 'users:' .. class, user) or 0, user)
  end
end

-- Never the same number twice, even if the last writes were lost and others came since.
local function users_changed()
  local passed = time[1] * 1000000 + time[2] - (call('HGET', 'meta', 'users') or 0)
  call('HINCRBY', 'meta', 'users', math.max(passed, 1))
end

local function session_key(user, session) return #user .. ' ' .. user .. session end

local function write(of, seat, facts) call('HSET', 'seats:' .. of, seat, cmsgpack.pack(facts)) end

-- What a seat adds to the sum of its owner's numbers.
local function summand(seat) return seat % 4294967296 end

-- The facts of a seat that is held by an owner that lives; nil for one that is not, or no longer.
local function read_of_living(of, seat)
  local packed = call('HGET', 'seats:' .. of, seat)
  if not packed then return nil end
  local facts = cmsgpack.unpack(packed)
  if facts.kept and facts.kept <= now then return nil end
  return facts
end

-- As above, whether the owner lives or not.
local function read(of, seat)
  return call('ZSCORE', 'owners', of) and read_of_living(of, seat) or nil
end

local function remove(of, seat, facts)
  call('HDEL', 'seats:' .. of, seat)
  -- Redis takes no '-0'.
  if summand(seat) > 0 then
    call('HINCRBY', 'count', of .. ':sum', string.format('%.0f', 0 - summand(seat)))
  end
  if facts.kept then
    call('ZREM', 'grace:' .. facts.class, of .. ' ' .. seat)
    call('ZREM', 'grace:' .. facts.class .. ':' .. of, of .. ' ' .. seat)
  else
    call('HINCRBY', 'count', facts.class, -1)
    call('HINCRBY', 'count', of .. ':' .. facts.class, -1)
  end
  if facts.session then
    local key = session_key(facts.user, facts.session)
    if call('HGET', 'sessions', key) == of .. ' ' .. seat then call('HDEL', 'sessions', key) end
  end
  if call('HDEL', 'opens:' .. of, seat) == 1 then drop_hold(facts.class, facts.user) end
end

-- A session belongs to one seat: the last that it was bound to.
local function bind(of, seat, facts)
  local key = session_key(facts.user, facts.session)
  local before = call('HGET', 'sessions', key)
  call('HSET', 'sessions', key, of .. ' ' .. seat)
  if before and before ~= of .. ' ' .. seat then
    local other, other_seat = string.match(before, '^(%S+) (%S+)$')
    local known = read(other, other_seat)
    if known then
      known.session = nil
      write(other, other_seat, known)
    end
  end
end

-- Ends an owner. Its seats leave the counts at once; what is left of them is cleared away a little
-- at a time.
local function finish(gone)
  for _, class in ipairs(classes) do
    local held = call('HGET', 'count', gone .. ':' .. class)
    if held then
      -- Redis takes no '-0'.
      call('HINCRBY', 'count', class, 0 - held)
      call('HDEL', 'count', gone .. ':' .. class)
    end
    local grace = 'grace:' .. class
    if call('EXISTS', grace .. ':' .. gone) == 1 then
      call('ZDIFFSTORE', grace, 2, prefix .. grace, prefix .. grace .. ':' .. gone)
      call('DEL', grace .. ':' .. gone)
    end
  end
  call('HDEL', 'count', gone .. ':sum')
  for _, open in ipairs(call('HVALS', 'opens:' .. gone)) do
    drop_hold(string.sub(open, 1, 1), string.sub(open, 2))
  end
  call('DEL', 'opens:' .. gone)
  call('ZREM', 'owners', gone)
  call('SADD', 'dead', gone)
end

-- Where no lease was renewed for half of one, and an owner asks, nobody could be heard: the engine
-- was away. Nothing was given to anybody meanwhile, so that time counts for no lease: whoever is
-- back first must not take the seats of sessions that go on elsewhere. Until when the asker's own
-- lease is then; nil without one.
local function stretch(lease)
  local own = tonumber(call('ZSCORE', 'owners', owner) or nil)
  local fresh = now + math.floor(lease / 2)
  if not own or own > fresh or call('ZCOUNT', 'owners', '(' .. fresh, '+inf') > 0 then return own end
  local all = call('ZRANGE', 'owners', 0, -1)
  local away = now + lease - call('ZSCORE', 'owners', all[#all])
  for _, one in ipairs(all) do
    call('ZADD', 'owners', 'XX', call('ZSCORE', 'owners', one) + away, one)
  end
  return own + away
end

-- Ends the owners whose lease is over. Whether the asker lives.
local function bury(lease)
  local own = stretch(lease)
  for _, gone in ipairs(call('ZRANGE', 'owners', '-inf', now, 'BYSCORE')) do finish(gone) end
  return own and own > now or false
end

-- Ends some of the graces that are over. They count for nothing already.
local function sweep()
  for _, class in ipairs(classes) do
    local ended = call('ZRANGE', 'grace:' .. class, '-inf', now, 'BYSCORE', 'LIMIT', 0, 8)
    for _, member in ipairs(ended) do
      local of, seat = string.match(member, '^(%S+) (%S+)$')
      local packed = call('HGET', 'seats:' .. of, seat)
      if packed then
        remove(of, seat, cmsgpack.unpack(packed))
      else
        call('ZREM', 'grace:' .. class, member)
      end
    end
  end
end

-- Clears away some of what dead owners left.
local function clear()
  local gone = call('SRANDMEMBER', 'dead')
  if not gone then return end
  local left = call('HSCAN', 'seats:' .. gone, 0, 'COUNT', 200)[2]
  for at = 1, #left, 2 do
    local facts = cmsgpack.unpack(left[at + 1])
    if facts.session then
      local key = session_key(facts.user, facts.session)
      if call('HGET', 'sessions', key) == gone .. ' ' .. left[at] then
        call('HDEL', 'sessions', key)
      end
    end
    call('HDEL', 'seats:' .. gone, left[at])
  end
  if call('EXISTS', 'seats:' .. gone) == 0 then call('SREM', 'dead', gone) end
end

local function kept(class) return call('ZCOUNT', 'grace:' .. class, '(' .. now, '+inf') end

local function connections(class) return (call('HGET', 'count', class) or 0) + kept(class) end

local function counted(class) return call('ZCOUNT', 'users:' .. class, '(' .. second, '+inf') end

local function reserved(class) return call('ZCOUNT', 'reserve:' .. class, '-inf', second) end

-- Begins an owner that is not known here. One that died before it was known stays dead: its seats
-- are void already.
local function begin(lease)
  if call('SISMEMBER', 'dead', owner) == 1 then return false end
  call('ZADD', 'owners', now + lease, owner)
  return true
end

if operation == 'admit' then
  -- lease, fresh, seat, class, user, session ('' = none), replaces ('' = none), force, in force,
  -- by users, limit, days that a user stays counted, established, facts for lists, channel,
  -- licence, held since (milliseconds; 0: it is a new one)
  local lives = bury(ARGV[3])
  local lease, fresh, seat, class, user = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  local session = ARGV[8] ~= '' and ARGV[8] or nil
  local replaces, force, in_force = ARGV[9], ARGV[10] == '1', ARGV[11] == '1'
  local by_users, limit, days = ARGV[12] == '1', tonumber(ARGV[13]), tonumber(ARGV[14])
  local was_established, list, channel, licence = ARGV[15] == '1', ARGV[16], ARGV[17], ARGV[18]
  local held_since = tonumber(ARGV[19])
  if fresh == '1' then lives = begin(lease) end
  if not lives then return { 'lost' } end
  -- Asked once more, because the answer was not heard.
  local function again()
    local present = read_of_living(owner, seat)
    return present and { 'granted', 0, 0, 0, 0, 0, present.since, present.established and 1 or 0, 1 }
  end

  local mine, own, twin, twin_owner, twin_seat = {}, nil, nil, nil, nil
  if replaces ~= '' then
    own = read_of_living(owner, replaces)
    if own then mine[#mine + 1] = own end
  end
  if session then
    -- What the session left behind is not to outlast it.
    sweep()
    local place = call('HGET', 'sessions', session_key(user, session))
    if place and place ~= owner .. ' ' .. replaces then
      twin_owner, twin_seat = string.match(place, '^(%S+) (%S+)$')
      twin = read(twin_owner, twin_seat)
      if twin then mine[#mine + 1] = twin end
    end
  end
  -- The session went on elsewhere: a seat that it left behind does not get it back.
  if held_since > 0 and twin and twin_owner ~= owner and twin.since >= held_since then
    return again() or { 'refused', 0, 0, 0, 0, 0 }
  end

  local holds, goes_on = 0, 0
  for _, facts in ipairs(mine) do
    if facts.class == class then
      holds = holds + 1
      if facts.user == user then goes_on = 1 end
    end
  end
  local of_owner, of_sum = owner .. ':' .. class, owner .. ':sum'
  local count = call('HMGET', 'count', class, of_owner, of_sum)
  local taken_connections = (count[1] or 0) + kept(class) - holds
  local taken_users, known = 0, 0
  if by_users then
    taken_users = counted(class) + reserved(class)
    -- The twin's user is the asker: only the seat that is replaced can be another's.
    if own and own.class == class and own.user ~= user
      and call('HEXISTS', 'opens:' .. owner, replaces) == 1
      and call('HGET', 'holds:' .. class, own.user) == '1'
      and tonumber(call('ZSCORE', 'users:' .. class, own.user) or 0) <= second then
      taken_users = taken_users - 1
    end
    local expiry = tonumber(call('ZSCORE', 'users:' .. class, user) or 0)
    if expiry > second or call('HEXISTS', 'holds:' .. class, user) == 1 then known = 1 end
  end

  local yes
  if not in_force then
    yes = goes_on == 1
  elseif by_users then
    yes = known == 1 or taken_users < limit
  else
    yes = holds > 0 or taken_connections < limit
  end
  if not yes and not force then
    return again() or { 'refused', taken_connections, taken_users, known, holds, goes_on }
  end

  local continued = own and own.user == user and own or nil
  local facts = { class = class, user = user, session = session, days = days, list = list }
  facts.since = held_since > 0 and math.min(held_since, now) or now
  facts.established = was_established or (twin and twin.established)
    or (continued and continued.established) or false
  if continued then
    facts.since = continued.since
    facts.session = facts.session or continued.session
  end
  if twin then facts.since = twin.since end
  if call('HSETNX', 'seats:' .. owner, seat, cmsgpack.pack(facts)) == 0 then
    local held = again()
    if held then return held end
    -- Its grace is over, and nobody cleared it away yet.
    remove(owner, seat, cmsgpack.unpack(call('HGET', 'seats:' .. owner, seat)))
    write(owner, seat, facts)
    count = nil
  end
  if by_users then
    add_hold(class, user)
    call('HSET', 'opens:' .. owner, seat, class .. user)
  end
  if own then remove(owner, replaces, own) end
  if twin then
    remove(twin_owner, twin_seat, twin)
    if twin_owner ~= owner then
      redis.call('PUBLISH', channel, 'supersede ' .. twin_seat .. ' ' .. twin_owner .. ' ' .. licence)
    end
  end
  if own or twin or not count then count = call('HMGET', 'count', class, of_owner, of_sum) end
  call('HSET', 'count', class, (count[1] or 0) + 1, of_owner, (count[2] or 0) + 1,
    of_sum, string.format('%.0f', (count[3] or 0) + summand(seat)))
  if facts.session then bind(owner, seat, facts) end
  return { 'granted', taken_connections, taken_users, known, holds, goes_on,
    facts.since, facts.established and 1 or 0, yes and 1 or 0 }
end

if operation == 'confirm' then
  -- seat, session ('' = none), count the user, anonymous, limit
  local seat = ARGV[3]
  if not call('ZSCORE', 'owners', owner) then return { 'lost' } end
  local facts = read_of_living(owner, seat)
  if not facts then return { 'gone' } end
  local class, user = facts.class, facts.user
  local before = ARGV[5] == '1' and tonumber(call('ZSCORE', 'users:' .. class, user) or 0)
  local holds = call('HEXISTS', 'opens:' .. owner, seat) == 1
  -- The lease was over since the open was decided, and the user's place with it: it may be another's now.
  if ARGV[5] == '1' and not holds and before <= second and call('HEXISTS', 'holds:' .. class, user) == 0
    and counted(class) + reserved(class) >= tonumber(ARGV[7]) then
    return { 'gone' }
  end
  facts.established = true
  if ARGV[4] ~= '' then
    if facts.session and facts.session ~= ARGV[4] then
      local key = session_key(user, facts.session)
      if call('HGET', 'sessions', key) == owner .. ' ' .. seat then call('HDEL', 'sessions', key) end
    end
    facts.session = ARGV[4]
    bind(owner, seat, facts)
  end
  write(owner, seat, facts)
  if ARGV[5] == '1' then
    local expires = (math.floor(second / 86400) + facts.days) * 86400 + 86399
    local place
    if before > second then
      expires = math.max(expires, before)
      place = string.match(call('HGET', 'user:' .. class, user) or '', '^%d+')
    end
    place = place or call('HINCRBY', 'meta', 'places', 1)
    local told = place .. ' ' .. ARGV[6]
    if expires ~= before or call('HGET', 'user:' .. class, user) ~= told then
      call('ZADD', 'users:' .. class, expires, user)
      call('HSET', 'user:' .. class, user, told)
      call('ZADD', 'reserve:' .. class, 'XX', expires, user)
      users_changed()
    end
  end
  if holds then
    call('HDEL', 'opens:' .. owner, seat)
    drop_hold(class, user)
  end
  return { 'done' }
end

if operation == 'release' then
  -- seats
  for at = 3, #ARGV do
    local facts = read(owner, ARGV[at])
    if facts then remove(owner, ARGV[at], facts) end
  end
  return { 'done' }
end

if operation == 'keep' then
  -- seat, grace in milliseconds
  local seat, grace = ARGV[3], tonumber(ARGV[4])
  local facts = read(owner, seat)
  if not facts or facts.kept then return { 'gone' } end
  if grace <= 0 or not facts.established or not facts.session then
    remove(owner, seat, facts)
    return { 'gone' }
  end
  if call('HDEL', 'opens:' .. owner, seat) == 1 then drop_hold(facts.class, facts.user) end
  facts.kept = now + grace
  write(owner, seat, facts)
  call('HINCRBY', 'count', facts.class, -1)
  call('HINCRBY', 'count', owner .. ':' .. facts.class, -1)
  call('ZADD', 'grace:' .. facts.class, facts.kept, owner .. ' ' .. seat)
  call('ZADD', 'grace:' .. facts.class .. ':' .. owner, facts.kept, owner .. ' ' .. seat)
  sweep()
  return { 'done' }
end

if operation == 'renew' then
  -- lease, fresh
  local lives = bury(ARGV[3])
  sweep()
  clear()
  if ARGV[4] == '1' then lives = begin(ARGV[3]) end
  if not lives then return { 'lost' } end
  call('ZADD', 'owners', now + ARGV[3], owner)
  local told = { 'renewed', tonumber(call('HGET', 'meta', 'users') or 0), call('HLEN', 'seats:' .. owner),
    tonumber(call('HGET', 'count', owner .. ':sum') or 0) }
  for _, class in ipairs(classes) do
    told[#told + 1] = connections(class)
    told[#told + 1] = kept(class)
    told[#told + 1] = tonumber(call('HGET', 'count', owner .. ':' .. class) or 0)
    told[#told + 1] = call('ZCOUNT', 'grace:' .. class .. ':' .. owner, '(' .. now, '+inf')
    told[#told + 1] = reserved(class)
  end
  return told
end

if operation == 'leave' then
  -- The gateway ends, and its seats with it.
  if call('ZSCORE', 'owners', owner) then finish(owner) end
  return { 'done' }
end

if operation == 'own' then
  -- What the owner holds.
  return call('HKEYS', 'seats:' .. owner)
end

if operation == 'list' then
  -- All seats: seat, since, where it stands ('o' opening, 'c' connected, or until when it is kept),
  -- facts for lists, each.
  local found = {}
  for _, of in ipairs(call('ZRANGE', 'owners', '(' .. now, '+inf', 'BYSCORE')) do
    local all = call('HGETALL', 'seats:' .. of)
    for at = 1, #all, 2 do
      local facts = cmsgpack.unpack(all[at + 1])
      if not facts.kept or facts.kept > now then
        found[#found + 1] = all[at]
        found[#found + 1] = string.format('%.0f', facts.since)
        found[#found + 1] = facts.kept and string.format('%.0f', facts.kept)
          or (facts.established and 'c' or 'o')
        found[#found + 1] = facts.list
      end
    end
  end
  return found
end

return redis.error_reply('ERR unknown operation ' .. operation)
