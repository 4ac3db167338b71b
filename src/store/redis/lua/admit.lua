-- May this session start? Repeated starts are renewals, so that a caller can try again without harm.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua, then u16 limit, u8 what to do when all slots are taken (0 refuse, 1 the oldest gives way,
--          2 the idlest, 3 the one that is named), u16 bytes of the named key, that key, u16 bytes of what follows, and flags,
--          ticket and facts as in a record
--
-- Returns  'S' u48 now, u48 expires, u16 active, displaced records: it has started
--          'R' u48 now, u48 expires, u16 active, its record but for the times of this renewal: it was live already, and is renewed
--          'F' u48 now, records: all slots are taken, by these
--          'E' cause: it has ended
--          'N' the session named can't be stopped from here

local limit, when_full, named, rest = unpack('>I2BI2c0I2c0', ARGV[2], 13)

-- A video has no other id to start with, so its end keeps it out only while all slots are taken: nobody comes back by displacing.
if grave and (string.byte(key) % 16 ~= 3 or seats >= limit) then
  if string.byte(cause) ~= 1 then
    -- Who has been displaced and keeps asking stays displaced.
    front, middle = sub(roster, 17, grave + 1) .. pack('>I6', now + MEMORY), sub(roster, grave + 8)
  end
  answer = 'E' .. cause
elseif seat then
  -- What is newly known of it is taken over, the rest is kept, and so is the door it came through.
  local tail = seat + 14 + #key
  local flags, news = string.byte(roster, tail + 6), string.byte(rest)
  local known = sub(roster, tail + 7 + (flags >= 4 and 4 or 0), seat + bytes - 1)
  local facts = sub(rest, news >= 4 and 6 or 2)
  if (flags % 4 == 0 and news % 4 ~= 0) or (facts ~= known and facts ~= '') then
    local values, tags = {}, {}
    for _, list in ipairs({ known, facts }) do
      local at = 1
      while at < #list do
        local tag, last_byte = string.byte(list, at) % 16, at + 2 + string.byte(list, at + 1)
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
    local merged, door = table.concat(tags), flags % 4 == 0 and news % 4 or flags % 4
    local length = 21 + #key + #merged
    plain = roster
    roster = sub(roster, 1, seat - 1) .. pack('>I2I6I6', length, expires, 0) .. key
      .. sub(roster, tail, tail + 5) .. string.char(door) .. merged .. sub(roster, seat + bytes)
    changed, bytes = true, length
  end
  expires = math.max(expires, now + lease)
  patch = pack('>I6I6', expires, now)
  answer = pack('>c1I6I6I2', 'R', now, expires, seats) .. sub(roster, seat, seat + bytes - 1)
else
  local displaced = ''
  local excess = seats + 1 - limit
  if excess > 0 then
    -- Who may be made to give way, the first to go first. The order in which they came decides between equals.
    local candidates, at = {}, 17
    for order = 1, when_full == 0 and 0 or seats do
      local length, _, renewed, kind, id_bytes = unpack('>I2I6I6BB', roster, at)
      local tail = at + 17 + id_bytes
      local name, started = sub(roster, at + 14, tail - 1), unpack('>I6', roster, tail)
      if renewed == 0 then
        renewed = started
      end
      if when_full ~= 3 or name == named then
        if kind % 16 ~= 1 then
          local since = when_full == 1 and started or renewed
          candidates[#candidates + 1] = { since = since, order = order, key = name, at = at, bytes = length }
        elseif when_full == 3 then
          answer = 'N'
        end
      end
      at = at + length
    end

    if not answer and #candidates < excess then
      answer = pack('>c1I6', 'F', now) .. sub(roster, 17, tombs - 1)
    end

    if not answer then
      table.sort(candidates, function(a, b)
        return a.since < b.since or (a.since == b.since and a.order < b.order)
      end)
      local leaving, records, staying = {}, {}, {}
      burials = {}
      for index = 1, excess do
        local session = candidates[index]
        leaving[session.at] = true
        records[index] = sub(roster, session.at, session.at + session.bytes - 1)
        burials[2 * index - 1], burials[2 * index] = session.key, '\2' .. key
      end
      at = 17
      for _ = 1, seats do
        local length = unpack('>I2', roster, at)
        if not leaving[at] then
          staying[#staying + 1] = sub(roster, at, at + length - 1)
        end
        at = at + length
      end
      displaced = table.concat(records)
      roster = sub(roster, 1, 16) .. table.concat(staying) .. sub(roster, tombs)
      seats, tombs = seats - excess, tombs - #displaced
    end
  end

  if not answer then
    expires = now + lease
    front = sub(roster, 17, tombs - 1)
    local ends = sub(roster, tombs)
    if grave then
      ends = sub(roster, tombs, grave - 1) .. sub(roster, grave + unpack('>I2', roster, grave))
      graves = graves - 1
    end
    middle = pack('>I2I6I6', 20 + #key + #rest, expires, 0) .. key .. pack('>I6', now) .. rest .. ends
    seats, grows = seats + 1, true
    answer = pack('>c1I6I6I2', 'S', now, expires, seats) .. displaced
  end
end
