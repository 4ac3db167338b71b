-- What renews a live session where it stands, and is nearly all that Redis is ever asked for: one read, one write, nothing moved.
--
-- Here are `name`, the roster's key in Redis; `key`, the session's; `now`, and `lease`. This leaves in `till` until when the session counts.
-- If it leaves nothing there, it has done nothing, and what is to be done is for open.lua and what follows that to say; they agree
-- on everything that is decided here. Only a session that has played and may stay is renewed here. Other sessions are not looked at: what
-- of theirs has expired, or lies ahead since the clock has stepped back, stays for whatever next decides or changes something. A full
-- Redis refuses the write.
-- open.lua says how a roster is laid out.

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
  -- These bytes are the session's key where one of the sessions' records has it, and may be anything anywhere else.
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
  -- The offset is given as a text, since Redis takes twice as long to make one of a number.
  if redis.pcall('SETRANGE', name, string.format('%d', seat + 1), struct.pack('>I6I6', expires, now)) == #roster then
    till = expires
  end
until true

