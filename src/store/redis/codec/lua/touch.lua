-- Renews a live session in place. Nearly all calls need only this: one read, one write, nothing
-- moved.
--
-- Needs `name`, the roster's key in Redis; `key`, the session's; `now`, and `lease`. Sets `till` to
-- the end of the session's lease. If it leaves `till` unset it has done nothing, and open.lua and
-- what follows it decide; they agree with everything that is decided here. It renews only a session
-- that has played and may stay. It doesn't visit other sessions: expired ones, and times that lie
-- ahead since the clock has stepped back, stay until the next script that decides or changes
-- something. A full Redis refuses the write. open.lua describes the layout of a roster.

local till
repeat
  local unpack = struct.unpack
  local roster = redis.call('GET', name)
  local found = roster and string.find(roster, key, HEAD + 1 + KEY_AT, true)
  if not found then
    break
  end
  local version, seats, written, keep, first, noted = unpack('>BI2xI6I4I6I2', roster)
  if version ~= VERSION or seats == 0 or written > now or first <= now then
    break
  end
  -- These bytes are the session's key only at a session record's offset of the key; anywhere else
  -- they may be anything.
  local seat, at, left = found - KEY_AT, HEAD + 1 + noted, seats
  while at < seat and left > 1 do
    at, left = at + unpack('>I2', roster, at), left - 1
  end
  if at ~= seat then
    break
  end
  local expires, renewed = unpack('>I6I6', roster, seat + 2)
  local flags = string.byte(roster, found + #key + MILLIS) % (2 * PROVISIONAL)
  if expires <= now or renewed > now or flags < PLAYED or flags >= PROVISIONAL then
    break
  end
  if expires < now + lease then
    expires = now + lease
  end
  if expires > written + keep then
    break
  end
  -- The offset is passed as text, because Redis takes twice as long to format a number.
  if redis.pcall('SETRANGE', name, string.format('%d', seat + 1), struct.pack('>I6I6', expires, now)) == #roster then
    till = expires
  end
until true

