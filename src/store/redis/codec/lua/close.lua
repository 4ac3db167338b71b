-- The end of every script that changes a roster: at most one effective write, and the answer.
--
-- Needs  open.lua, and the operation's variables: at least `answer`
--
-- A full Redis refuses commands that may need memory until a script has written something. It must
-- always be possible to renew and to release, so such an operation first writes something that
-- needs no memory. It does so only if the key exists and doesn't become longer, so that a full
-- Redis never grows. Operations that would need more room are handled like this:
--   a start, or a session that is put back: refused, with Redis's own error
--   a renewal with new facts: a plain renewal, which takes over none of them
--   a release of a session without a slot: answered as usual, but the end is not remembered
-- A release that frees a slot never needs more room: a tombstone is shorter than its session.

if patch then
  if not changed and expires <= kept then
    local done = redis.pcall('SETRANGE', KEYS[1], seat + 1, patch)
    if done ~= #roster then
      if not string.find(done.err, OUT_OF_MEMORY, 1, true) then
        return done
      end
      call('PEXPIRE', KEYS[1], string.format('%d', math.ceil(kept - now)))
      call('SETRANGE', KEYS[1], seat + 1, patch)
    end
    return answer
  end
  front, middle = sub(roster, begin, seat + 1) .. patch, sub(roster, seat + KEY_AT)
end

if front or burials then
  changed = true
end
if not changed then
  return answer
end
front = front or sub(roster, begin)

local back = ''
if burials then
  for index = 1, #burials do
    local burial = burials[index]
    if graves >= OTHER_ENDS then
      -- Three lists are bounded separately, so that none pushes out another's ends: an operator's
      -- ends (3), those of live sessions (2), and those of requests and of ids that were never live
      -- (1). In a full list, the end that would expire first makes room.
      local function list_of(end_flags, end_kind)
        if end_flags % CAUSES == OPERATOR then
          return 3
        end
        return (end_flags % (2 * WAS_LIVE) >= WAS_LIVE and end_kind ~= REQUEST) and 2 or 1
      end
      local list = list_of(burial.flags, byte(burial.key) % TAGS)
      local room = list == 2 and LIVE_ENDS or OTHER_ENDS
      local records, at, count, earliest, from, to = front .. middle .. back, 1, 0, NEVER + 1, nil, nil
      for number = 1, seats + graves do
        local length, ends = unpack('>I2I6', records, at)
        if number > seats then
          local end_kind = byte(records, at + KEY_AT) % TAGS
          local end_flags = byte(records, at + (KEY_AT + 3) + byte(records, at + (KEY_AT + 1)))
          if list_of(end_flags, end_kind) == list then
            count = count + 1
            if ends < earliest then
              earliest, from, to = ends, at, at + length
            end
          end
        end
        at = at + length
      end
      if count >= room then
        if byte(records, from + KEY_AT) % TAGS ~= REQUEST then
          -- Until that would have expired anyway, an unknown playback may be one that has ended.
          forgot_at, forgot_until = now, math.max(forgot_until, earliest)
        end
        front, middle, back, graves = sub(records, 1, from - 1), sub(records, to), '', graves - 1
      end
    end
    local ends_at = math.floor(burial.till)
    back = back .. pack('>I2I6I6', (KEY_AT + 1) + #burial.key + #burial.rest, ends_at, now) .. burial.key .. string.char(burial.flags) .. burial.rest
    graves, first, kept = graves + 1, math.min(first, ends_at), math.max(kept, burial.till)
  end
end

local notes = unknown_notes
if spent > 0 then
  notes = notes .. pack('>BBI2I6', BUDGET, 7, spent, since)
  kept = math.max(kept, since + spent * REFILL)
end
if forgot_until > 0 then
  notes = notes .. pack('>BBI6I6', FORGOTTEN, 11, forgot_at, forgot_until)
  kept = math.max(kept, forgot_until)
end
if seats + graves + #notes == 0 then
  call('DEL', KEYS[1])
  return answer
end
-- The key is kept as long as was promised before, and at least twice as long as this instance
-- needs, so that most renewals don't need to extend it.
local keep_text = KEEP_TEXT
keep = KEEP
if kept - now > KEEP then
  keep = math.min(math.ceil(kept - now), 2 ^ 32 - 1)
  keep_text = string.format('%d', keep)
end
local head = pack('>BI2BI6I4I6I2', VERSION, seats, graves, now, keep, first, #notes) .. notes
local value = head .. front .. middle .. back
local done = redis.pcall('SET', KEYS[1], value, 'PX', keep_text)
if done.err then
  if grows or not string.find(done.err, OUT_OF_MEMORY, 1, true) then
    return done
  end
  local old = call('GET', KEYS[1])
  if not old or #value > #old then
    if burials then
      return answer
    elseif not plain then
      return done
    end
    value = head .. sub(plain, begin, seat + 1) .. patch .. sub(plain, seat + KEY_AT)
    answer = sub(answer, 1, 17) .. sub(plain, seat, seat + unpack('>I2', plain, seat) - 1)
  end
  call('DEL', KEYS[1])
  call('SET', KEYS[1], value, 'PX', keep_text)
end
return answer
