-- This session is over.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua (the lease means nothing), then u8 who says so (1 the stream, 2 somebody who vouches for it,
--          3 an operator, 4 the call that started it), u32 that call's ticket
--
-- Returns  'G' record: it held a slot, which is free now
--          'A' it held none; that it has ended is now remembered where its kind wants it, if there is room
--          'E' cause: that it has ended was known
--          'N' it can't be stopped from here
--          'K' it is not that call's untouched start, and goes on

local who, ticket = unpack('>BI4', ARGV[2], 13)
local kind = string.byte(key) % 16

if grave then
  answer = 'E' .. cause
elseif who == 3 and kind == 1 then
  answer = seat and 'N' or 'A'
else
  answer = 'A'
  if seat then
    local record = sub(roster, seat, seat + bytes - 1)
    local renewed, flags = unpack('>I6', record, 9), string.byte(record, 21 + #key)
    if who == 4 and (renewed ~= 0 or flags < 4 or unpack('>I4', record, 22 + #key) ~= ticket) then
      answer = 'K'
    else
      answer = 'G' .. record
      front, middle, seats = sub(roster, 17, seat - 1), sub(roster, seat + bytes), seats - 1
    end
  end
  if (who == 1 and kind ~= 3) or (who == 2 and kind == 2) then
    burials = { key, '\1' }
  elseif who == 3 then
    burials = { key, '\3' }
  end
end
