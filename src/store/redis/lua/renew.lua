-- This stream was seen running. It counts, be it above the limit.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question: as in open.lua, then u16 how many may count for it to be put back, u48 when it started (all ones: nobody
--          knows), u16 bytes of what follows, and flags and facts as in a record, for when it has to be put back
--
-- Returns  an integer, until when it counts: it was known, and is renewed
--          'P' u48 expires: it was unknown, and is put back (a full Redis refuses this with an error, unless it takes no more room)
--          'E' cause: it has ended
--          'C' it was unknown, and too many count already

if grave then
  answer = 'E' .. cause
elseif seat then
  if expires < now + lease then
    expires = now + lease
  end
  patch = pack('>I6I6', expires, now)
  answer = expires
else
  local room, started, rest = unpack('>I2I6I2c0', ARGV[2], 13)
  if seats >= room then
    answer = 'C'
  else
    expires = now + lease
    front = sub(roster, 17, tombs - 1) .. pack('>I2I6I6', 20 + #key + #rest, expires, now) .. key
      .. pack('>I6', math.min(started, now)) .. rest
    middle, seats = sub(roster, tombs), seats + 1
    answer = pack('>c1I6', 'P', expires)
  end
end
