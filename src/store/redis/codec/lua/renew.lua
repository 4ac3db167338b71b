-- Handles a sighting. The session counts, above the limit if necessary; one that hasn't played
-- counts only if a start would be admitted.
--
-- KEYS[1]  the user's roster
-- KEYS[2]  the user's override, as in override.lua
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua, then
--          u16 limit
--          u8 what is known about it (0 the store counted it, 1 the outage rule let it in,
--          2 nothing has played)
--          u48 when it started (all ones: unknown)
--          u16 length of the rest, and flags and facts as in a record, for putting it back
--
-- Returns  an integer, when its lease ends: it was live, and is renewed
--          'V' u48 expires: it counts, but hasn't played yet or may not stay
--          'P' u48 expires: it was unknown, and is put back (a full Redis refuses this with an
--              error, unless it takes no more room)
--          'E' u8 cause, u32 0, key of the session that took its slot: it has ended
--          'C' it was unknown, and doesn't count

local limit, standing, started, rest = unpack('>I2BI6I2c0', ARGV[2], OPERATION_AT)
if override ~= NONE then
  limit = override
end
local is_request = byte(key) % TAGS == REQUEST

if grave then
  answer = pack('>c1BI4', 'E', why, 0) .. by
elseif seat then
  local flags = byte(roster, seat + FLAGS_AT + #key)
  if standing ~= UNPLAYED and flags % (2 * PLAYED) < PLAYED then
    flags = flags + PLAYED
  end
  --@include see.lua
  flags = flags % (2 * PROVISIONAL)
  answer = (flags >= PLAYED and flags < PROVISIONAL) and expires or pack('>c1I6', 'V', expires)
else
  local as_start = not is_request and (standing == UNPLAYED or forgot_until > 0)
  if seats >= limit + PUT_BACK or (as_start and seats >= limit) then
    answer = 'C'
  else
    local is_guest = not is_request and seats >= limit and standing == BY_RULE
    expires = now + lease
    front = sub(roster, begin, tombs - 1) .. pack('>I2I6I6', FLAGS_AT + #key + #rest, expires, now) .. key
      .. pack('>I6', math.min(started, now)) .. string.char(byte(rest) + (is_guest and PROVISIONAL or 0)) .. sub(rest, 2)
    middle, seats = sub(roster, tombs), seats + 1
    answer = pack('>c1I6', (as_start or is_guest) and 'V' or 'P', expires)
  end
end
