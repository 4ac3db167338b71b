-- Starts a session. A repeated start is a renewal, so a caller can safely retry.
--
-- KEYS[1]  the user's roster
-- KEYS[2]  the user's override, as in override.lua
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua, then
--          u16 limit
--          u8 what to do when all slots are taken (0 refuse, 1 displace the oldest, 2 displace the
--          idlest, 3 displace the named session)
--          u8 1 if displacing is free, plus 2 if the start itself asked for a slot, plus 4 if it
--          only renews, so that no override takes the place of the limit
--          u16 how many starts may displace in a burst
--          u32 how long a derived id must be quiet
--          u16 length of the named key, that key
--          u16 length of the message for the viewers of displaced sessions, that message as facts
--          u16 length of the rest, and flags, ticket and facts as in a record
--
-- Returns  'S' u48 now, u48 expires, u16 active, u16 override or NONE, u8 flags, displaced records:
--              it has started
--          'R' u48 now, u48 expires, u16 active, u16 override or NONE, its record without the times
--              of this renewal: it was live already, and is renewed
--          'F' u48 now, u16 limit (NONE if it is the question's), records: these sessions take all
--              slots
--          'E' u8 cause, u32 how long it must stay quiet (0: it may never start again), key of
--              the session that took its slot, message as facts: it has ended
--          'N' the named session can't be stopped from here

local limit, when_full, manner, burst, quiet, named, message, rest = unpack('>I2BBI2I4I2c0I2c0I2c0', ARGV[2], OPERATION_AT)
if manner >= RENEWS_ONLY then
  manner = manner - RENEWS_ONLY
elseif override ~= NONE then
  limit, burst = override, burst - limit + override
end
local kind, news = byte(key) % TAGS, byte(rest)
local begins, provisional = not grave, false

-- Set only when needed: most starts compare no facts.
local facts, origin, same_origin
if grave or seat or seats >= limit then
  facts = sub(rest, news % (2 * HAS_TICKET) >= HAS_TICKET and 2 + TICKET_BYTES or 2)

  -- The device and the joined origin in a list of facts, in their encoded form.
  function origin(list)
    local device, joined, at = nil, nil, 1
    while at < #list do
      local tag, last = byte(list, at) % TAGS, at + 2 + byte(list, at + 1)
      -- A shortened device (at least 253 bytes, and ends in an ellipsis) is no origin.
      if tag == DEVICE and (last - at < 254 or sub(list, last - 2, last) ~= '\226\128\166') then
        device = sub(list, at, last)
      elseif tag == JOINED then
        joined = sub(list, at, last)
      end
      at = last + 1
    end
    return device, joined
  end

  -- Whether another session's facts show the same origin as the start's: true, false, or nil if
  -- they have no such fact in common.
  function same_origin(list)
    local device, joined = origin(facts)
    local other_device, other_joined = origin(list)
    if (device and device == other_device) or (joined and joined == other_joined) then
      return true
    elseif (device and other_device) or (joined and other_joined) then
      return false
    end
  end
end

if grave then
  -- A video's id is the film's: its end keeps it out only while all slots are taken. Of other ids
  -- a derived one may start again.
  local derived = news % (2 * DERIVED) >= DERIVED
  if grave_flags % (2 * WAS_LIVE) >= WAS_LIVE then
    derived = grave_flags % (2 * DERIVED) >= DERIVED
  end
  local _, asked = unpack('>I6I6', roster, grave + 2)
  if kind == VIDEO then
    begins = seats < limit
  elseif derived then
    begins = why == RELEASED or now - asked >= quiet
    if not begins and why == DISPLACED then
      begins = seats < limit or manner >= TAKEOVER
      if not begins then
        local same = same_origin(sub(roster, grave + (KEY_AT + 1) + #key + #by, grave + grave_bytes - 1))
        begins = same or (same == nil and when_full ~= REFUSE)
      end
    end
  end
  provisional = why == RELEASED
  if not begins then
    if why ~= RELEASED then
      -- A client that was stopped and keeps asking stays out. Once the end is forgotten, nothing
      -- keeps the id out.
      local till = math.max(unpack('>I6', roster, grave + 2), now + MEMORY, latest + MARGIN)
      kept, quiet = math.max(kept, till), math.min(quiet, till - now)
      front = sub(roster, begin, grave + 1) .. pack('>I6I6', till, now)
      middle = sub(roster, grave + KEY_AT)
    end
    answer = pack('>c1BI4', 'E', why, (derived and why ~= RELEASED and kind ~= VIDEO) and quiet or 0) .. by
    -- What its viewer is told.
    local at, ends = grave + (KEY_AT + 1) + #key + #by, grave + grave_bytes
    while at < ends do
      local last = at + 2 + byte(roster, at + 1)
      if byte(roster, at) % TAGS == MESSAGE then
        answer = answer .. sub(roster, at, last)
      end
      at = last + 1
    end
  end
end

if answer then
  -- It stays out.
elseif seat then
  -- New facts are taken over; others are kept, and so is the door it came through.
  local flags
  do
    local tail = seat + KEY_AT + #key
    flags = byte(roster, tail + MILLIS)
    local has_ticket = flags % (2 * HAS_TICKET) >= HAS_TICKET
    local known = sub(roster, tail + (MILLIS + 1) + (has_ticket and TICKET_BYTES or 0), seat + bytes - 1)
    if (flags % DOORS == 0 and news % DOORS ~= 0) or (facts ~= known and facts ~= '') then
      local values, tags = {}, {}
      for _, list in ipairs({ known, facts }) do
        local at = 1
        while at < #list do
          local tag, last_byte = byte(list, at) % TAGS, at + 2 + byte(list, at + 1)
          if not values[tag] then
            tags[#tags + 1] = tag
          end
          values[tag] = sub(list, at, last_byte)
          at = last_byte + 1
        end
      end
      for index, tag in ipairs(tags) do
        tags[index] = values[tag]
      end
      local merged = table.concat(tags)
      if flags % DOORS == 0 then
        flags = flags + news % DOORS
      end
      if has_ticket then
        flags = flags - HAS_TICKET
      end
      local length = (FLAGS_AT + 1) + #key + #merged
      plain = roster
      roster = sub(roster, 1, seat - 1) .. pack('>I2I6I6', length, expires, 0) .. key
        .. sub(roster, tail, tail + (MILLIS - 1)) .. string.char(flags) .. merged .. sub(roster, seat + bytes)
      changed, bytes = true, length
    end
  end
  --@include see.lua
  answer = pack('>c1I6I6I2I2', 'R', now, expires, seats, override) .. sub(roster, seat, seat + bytes - 1)
else
  local displaced, paid = '', false
  local excess = seats + 1 - limit
  if excess > 0 then
    -- The sessions that may be displaced, in order. Among equals, the earliest start goes first.
    local candidates, at = {}, begin
    for order = 1, when_full == REFUSE and 0 or seats do
      local length, _, renewed, tag, id_bytes = unpack('>I2I6I6BB', roster, at)
      local tail = at + (KEY_AT + 3) + id_bytes
      local name, started = sub(roster, at + KEY_AT, tail - 1), unpack('>I6', roster, tail)
      if renewed == 0 then
        renewed = started
      end
      if when_full ~= NAMED or name == named then
        if tag % TAGS ~= REQUEST then
          local rank = when_full == OLDEST and started or renewed
          candidates[#candidates + 1] = { rank = rank, order = order, key = name, at = at, bytes = length, tail = tail }
        elseif when_full == NAMED then
          answer = 'N'
        end
      end
      at = at + length
    end
    table.sort(candidates, function(a, b)
      return a.rank < b.rank or (a.rank == b.rank and a.order < b.order)
    end)

    local barred = #candidates < excess
    if not answer and not barred then
      -- Displacing others is budgeted; a start that displaces only sessions of its own origin is
      -- free. A start that may come from a late request takes no slot from another device without
      -- asking for it.
      local all_own = true
      for index = 1, excess do
        local session = candidates[index]
        local skipped = byte(roster, session.tail + MILLIS) % (2 * HAS_TICKET) >= HAS_TICKET and MILLIS + 1 + TICKET_BYTES or MILLIS + 1
        local same = same_origin(sub(roster, session.tail + skipped, session.at + session.bytes - 1))
        all_own = all_own and same
        barred = barred or (provisional and manner < TAKEOVER and same == false)
      end
      paid = manner % (2 * FREE) == 0 and not all_own
    end
    if not answer and (barred or (paid and spent >= burst)) then
      answer = pack('>c1I6I2', 'F', now, override == NONE and NONE or limit) .. sub(roster, begin, tombs - 1)
    end

    if not answer then
      local leaving, records, staying = {}, {}, {}
      local device, joined = origin(facts)
      local rival, till = key .. (device or '') .. (joined or '') .. message, math.max(now + MEMORY, latest + MARGIN)
      burials = {}
      for index = 1, excess do
        local session = candidates[index]
        leaving[session.at] = true
        records[index] = sub(roster, session.at, session.at + session.bytes - 1)
        local derived = byte(roster, session.tail + MILLIS) % (2 * DERIVED) >= DERIVED
        burials[index] = { key = session.key, flags = derived and DISPLACED + WAS_LIVE + DERIVED or DISPLACED + WAS_LIVE, rest = rival, till = till }
      end
      at = begin
      for _ = 1, seats do
        local length = unpack('>I2', roster, at)
        if not leaving[at] then
          staying[#staying + 1] = sub(roster, at, at + length - 1)
        end
        at = at + length
      end
      displaced = table.concat(records)
      roster = sub(roster, 1, begin - 1) .. table.concat(staying) .. sub(roster, tombs)
      seats, tombs = seats - excess, tombs - #displaced
      if grave then
        grave = grave - #displaced
      end
      if paid then
        if spent == 0 then
          since = now
        end
        spent = spent + 1
      end
    end
  end

  if not answer then
    expires = now + (provisional and math.min(lease, PROVISIONAL_LEASE) or lease)
    front = sub(roster, begin, tombs - 1)
    local ends = sub(roster, tombs)
    if grave then
      ends = sub(roster, tombs, grave - 1) .. sub(roster, grave + grave_bytes)
      graves = graves - 1
    end
    local flags = news + (provisional and PROVISIONAL or 0) + (paid and PAID or 0)
    if flags ~= news then
      rest = string.char(flags) .. sub(rest, 2)
    end
    middle = pack('>I2I6I6', FLAGS_AT + #key + #rest, expires, 0) .. key .. pack('>I6', now) .. rest .. ends
    seats, grows = seats + 1, true
    answer = pack('>c1I6I6I2I2B', 'S', now, expires, seats, override, flags) .. displaced
  end
end
