-- What every script that changes a roster ends with: at most one write that counts, and the answer.
--
-- A full Redis refuses what may take memory until a script has written something. So where refusing is not for it to decide, something
-- that takes none is written first: it must always be possible to renew and to release.

if patch and not changed and expires <= kept then
  local written = redis.pcall('SETRANGE', KEYS[1], seat + 1, patch)
  if type(written) == 'table' then
    if not find(written.err, 'OOM command not allowed', 1, true) then
      return written
    end
    call('PEXPIRE', KEYS[1], KEEP)
    call('SETRANGE', KEYS[1], seat + 1, patch)
  end
  return answer
end

if patch then
  roster = sub(roster, 1, seat + 1) .. patch .. sub(roster, seat + 14)
  changed = true
end
if changed and seats + graves == 0 then
  call('DEL', KEYS[1])
elseif changed then
  local value = pack('>BI2BI6I6I6', 129, seats, graves, now + KEEP, first, last) .. sub(roster, 23)
  local written = redis.pcall('SET', KEYS[1], value, 'PX', KEEP)
  if written.err then
    if grows or not find(written.err, 'OOM command not allowed', 1, true) then
      return written
    end
    call('DEL', KEYS[1])
    call('SET', KEYS[1], value, 'PX', KEEP)
  end
end
return answer
