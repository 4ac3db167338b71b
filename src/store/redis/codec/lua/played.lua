-- Envoy reports that a request of this session got through to its viewer.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua (the lease means nothing)
--
-- Returns  'L' u48 how long it counts from now on, u8 whether it is proven: it is live
--          'A' it isn't

if seat then
  local at = seat + FLAGS_AT + #key
  local flags = byte(roster, at)
  if flags % (2 * PLAYED) < PLAYED then
    flags = flags + PLAYED
    front, middle = sub(roster, begin, at - 1), string.char(flags) .. sub(roster, at + 1)
  end
  answer = pack('>c1I6B', 'L', expires - now, flags % (2 * PROVISIONAL) < PROVISIONAL and 1 or 0)
else
  answer = 'A'
end
