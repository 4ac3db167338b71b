-- What every script that changes a roster ends with: at most one write that counts, and the answer.
--
-- A full Redis refuses what may take memory until a script has written something. So where refusing is not for it to decide, something
-- that takes none is written first: it must always be possible to renew and to release. But that is done only where the key exists and
-- does not become longer, so that a full Redis never grows. What would take more room is
--   a start or a session that is put back: refused, with Redis's own error
--   a renewal that brings news: a mere renewal, which takes over none
--   a release of what holds no slot: answered as ever, but the end is not remembered. A release that frees a slot is never among these:
--   a tombstone is shorter than the session it is of

if patch then
  if not changed and expires <= kept then
    local written = redis.pcall('SETRANGE', KEYS[1], seat + 1, patch)
    if written ~= #roster then
      if not string.find(written.err, 'OOM command not allowed', 1, true) then
        return written
      end
      call('PEXPIRE', KEYS[1], KEEP_TEXT)
      call('SETRANGE', KEYS[1], seat + 1, patch)
    end
    return answer
  end
  front, middle = sub(roster, 17, seat + 1) .. patch, sub(roster, seat + 14)
end

if front or burials then
  changed = true
end
if not changed then
  return answer
end
front = front or sub(roster, 17)

local back = ''
if burials then
  -- At most 64 ends are remembered; the earliest to be forgotten makes room.
  local till = now + MEMORY
  for index = 1, #burials, 2 do
    if graves >= 64 then
      local records, at, earliest, from, to = front .. middle .. back, 1, 2 ^ 48, nil, nil
      for number = 1, seats + graves do
        local length, ends = unpack('>I2I6', records, at)
        if number > seats and ends < earliest then
          earliest, from, to = ends, at, at + length
        end
        at = at + length
      end
      front, middle, back, graves = sub(records, 1, from - 1), sub(records, to), '', graves - 1
    end
    local name, reason = burials[index], burials[index + 1]
    back = back .. pack('>I2I6', 8 + #name + #reason, till) .. name .. reason
    graves = graves + 1
  end
  first = math.min(first, till)
end

if seats + graves == 0 then
  call('DEL', KEYS[1])
  return answer
end
local value = pack('>BI2BI6I6', 130, seats, graves, now + KEEP, first) .. front .. middle .. back
local written = redis.pcall('SET', KEYS[1], value, 'PX', KEEP_TEXT)
if written.err then
  if grows or not string.find(written.err, 'OOM command not allowed', 1, true) then
    return written
  end
  local old = call('GET', KEYS[1])
  if not old or #value > #old then
    if burials then
      return answer
    elseif not plain then
      return written
    end
    value = sub(value, 1, 16) .. sub(plain, 17, seat + 1) .. patch .. sub(plain, seat + 14)
    answer = sub(answer, 1, 15) .. sub(plain, seat, seat + unpack('>I2', plain, seat) - 1)
  end
  call('DEL', KEYS[1])
  call('SET', KEYS[1], value, 'PX', KEEP_TEXT)
end
return answer
