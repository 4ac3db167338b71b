-- Ends a session.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua (the lease is ignored), then
--          u8 who reports it (1 the stream, 2 a caller that vouches for it, 3 an operator, 4 the
--          call that started it, 5 Envoy, about a failed request)
--          u32 that call's ticket
--          u48 how long ago it was reported
--          u16 length of an operator's message for the viewer, that message as facts
--
-- Returns  'G' u48 now: it held a slot, which is free now
--          'A' it held none; if its kind has tombstones and there is room, the end is remembered
--          'E' u8 cause, u32 0, key of the session that took its slot: it had already ended
--          'N' it can't be stopped from here
--          'K' it stays live

local who, ticket, age, message = unpack('>BI4I6I2c0', ARGV[2], OPERATION_AT)
local kind = byte(key) % TAGS
local flags, goes_on
if seat then
  local tail = seat + KEY_AT + #key
  flags = byte(roster, tail + MILLIS)
  if who == UNDONE then
    goes_on = flags % (2 * HAS_TICKET) < HAS_TICKET or unpack('>I6', roster, seat + RENEWED_AT) ~= 0
      or unpack('>I4', roster, tail + (MILLIS + 1)) ~= ticket
      or (kind ~= REQUEST and flags % (2 * PLAYED) >= PLAYED)
  else
    goes_on = (who == FAILED and flags % (2 * PLAYED) >= PLAYED) or (age > 0 and not ahead and unpack('>I6', roster, tail) > now - age)
  end
end

if grave then
  answer = pack('>c1BI4', 'E', why, 0) .. by
elseif goes_on then
  answer = 'K'
elseif who == BY_OPERATOR and kind == REQUEST then
  answer = seat and 'N' or 'A'
else
  answer = 'A'
  if seat then
    answer = pack('>c1I6', 'G', now)
    front, middle, seats = sub(roster, begin, seat - 1), sub(roster, seat + bytes), seats - 1
  end
  if seat and who >= UNDONE then
    -- Undoes its start: the sessions it displaced may continue, and its displacement is refunded.
    -- An earlier session of this key made any older end.
    local staying, at, started = {}, tombs, unpack('>I6', roster, seat + KEY_AT + #key)
    for _ = 1, graves do
      local length, _, asked = unpack('>I2I6I6', roster, at)
      local after = at + (KEY_AT + 3) + byte(roster, at + (KEY_AT + 1))
      if asked < started or byte(roster, after) % CAUSES ~= DISPLACED or sub(roster, after + 1, after + #key) ~= key then
        staying[#staying + 1] = sub(roster, at, at + length - 1)
      end
      at = at + length
    end
    middle, graves = sub(roster, seat + bytes, tombs - 1) .. table.concat(staying), #staying
    if flags % (2 * PAID) >= PAID and spent > 0 then
      spent = spent - 1
    end
  end
  local cause
  if (who == STREAM and kind ~= VIDEO) or (who == VOUCHED and kind == PLAYBACK) then
    cause = RELEASED
  elseif who == BY_OPERATOR then
    cause = OPERATOR
  end
  if cause then
    local till = math.max(now + MEMORY, latest + MARGIN) - age
    if seat then
      -- The instance that granted the lease may answer from it until it expires, however old the
      -- report.
      till = math.max(till, expires + MARGIN)
    end
    if till > now then
      local derived = seat and flags % (2 * DERIVED) >= DERIVED
      burials = { { key = key, flags = cause + (seat and WAS_LIVE or 0) + (derived and DERIVED or 0), rest = who == BY_OPERATOR and message or '', till = till } }
    end
  end
end
