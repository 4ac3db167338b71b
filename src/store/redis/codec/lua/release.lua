-- This session is over.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua (the lease means nothing), then u8 who says so (1 the stream, 2 somebody who vouches for it,
--          3 an operator, 4 the call that started it, 5 Envoy, of a failed request), u32 that call's ticket, u48 how long ago it was said
--
-- Returns  'G' record: it held a slot, which is free now
--          'A' it held none; that it has ended is now remembered where its kind wants it, if there is room
--          'E' u8 cause, u32 0, key of who took its slot: that it has ended was known
--          'N' it can't be stopped from here
--          'K' it goes on

local who, ticket, age = unpack('>BI4I6', ARGV[2], 13)
local kind = byte(key) % 16
local flags, goes_on
if seat then
  local tail = seat + 14 + #key
  flags = byte(roster, tail + 6)
  if who == 4 then
    goes_on = flags % 8 < 4 or unpack('>I6', roster, seat + 8) ~= 0 or unpack('>I4', roster, tail + 7) ~= ticket
      or (kind ~= 1 and flags % 32 >= 16)
  else
    goes_on = (who == 5 and flags % 32 >= 16) or (age > 0 and unpack('>I6', roster, tail) > now - age)
  end
end

if grave then
  answer = pack('>c1BI4', 'E', why, 0) .. by
elseif goes_on then
  answer = 'K'
elseif who == 3 and kind == 1 then
  answer = seat and 'N' or 'A'
else
  answer = 'A'
  if seat then
    answer = 'G' .. sub(roster, seat, seat + bytes - 1)
    front, middle, seats = sub(roster, begin, seat - 1), sub(roster, seat + bytes), seats - 1
  end
  if seat and who >= 4 then
    -- What its start did is undone: those it displaced may go on, and its displacement is given back. An older end was made by an earlier
    -- session of this key.
    local staying, at, started = {}, tombs, unpack('>I6', roster, seat + 14 + #key)
    for _ = 1, graves do
      local length, _, asked = unpack('>I2I6I6', roster, at)
      local after = at + 17 + byte(roster, at + 15)
      if asked < started or byte(roster, after) % 4 ~= 2 or sub(roster, after + 1, after + #key) ~= key then
        staying[#staying + 1] = sub(roster, at, at + length - 1)
      end
      at = at + length
    end
    middle, graves = sub(roster, seat + bytes, tombs - 1) .. table.concat(staying), #staying
    if flags % 128 >= 64 and spent > 0 then
      spent = spent - 1
    end
  end
  local cause
  if (who == 1 and kind ~= 3) or (who == 2 and kind == 2) then
    cause = 1
  elseif who == 3 then
    cause = 3
  end
  if cause then
    local till = math.max(now + MEMORY, latest + MARGIN) - age
    if seat then
      -- However old the report is, the instance that granted the lease may answer from it until it expires.
      till = math.max(till, expires + MARGIN)
    end
    if till > now then
      local derived = seat and flags % 16 >= 8
      burials = { { key = key, flags = cause + (seat and 4 or 0) + (derived and 8 or 0), rest = '', till = till } }
    end
  end
end
