-- Envoy reports that a request of this session got through to its viewer.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua (the lease means nothing)
--
-- Returns  'L' u48 how long it counts from now on, u8 whether it is proven: it is live
--          'A' it isn't

if seat then
  local at = seat + 20 + #key
  local flags = byte(roster, at)
  if flags % 32 < 16 then
    flags = flags + 16
    front, middle = sub(roster, begin, at - 1), string.char(flags) .. sub(roster, at + 1)
  end
  answer = pack('>c1I6B', 'L', expires - now, flags % 64 < 32 and 1 or 0)
else
  answer = 'A'
end
