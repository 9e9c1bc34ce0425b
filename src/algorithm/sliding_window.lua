-- Sliding window, the twin of sliding_window.rs.

local function sliding_remaining(previous, current, limit, length, left)
  local seen = previous
  if left < length and previous > 0 then seen = previous - mul_div(length - left, previous, length) end
  local remaining = limit - current - seen
  return remaining > 0 and remaining or 0
end

-- Microseconds until `tokens` are left, from `left` before the end of the window.
local function sliding_wait(tokens, previous, current, limit, length, left, capacity, fill)
  local room = limit - current - tokens
  if room >= 0 then return left - mul_div(room, length, previous) end
  room = capacity - tokens
  if room >= current then return left end
  return left + fill - mul_div(room, fill, current)
end

local function sliding_standing(previous, current, limit, length, left, capacity, fill)
  local remaining, reset, next_after = sliding_remaining(previous, current, limit, length, left), 0, 0
  if current > 0 then reset = left + fill elseif previous > 0 then reset = left end
  if remaining < capacity then
    next_after = sliding_wait(remaining + 1, previous, current, limit, length, left, capacity, fill)
  end
  return remaining, reset, next_after
end

-- The window, its counters and the time in it, from a record; nil when it is not ours or nothing in it is in sight.
-- The last value tells whether it was ours.
local function sliding_read(record, now, capacity, fill)
  local start, previous, current, limit = integers(record)
  local length = integer(record[5])
  if not (start and length and is_window(start, limit, length)
      and previous <= LARGEST and current <= LARGEST) then
    return nil, 0, 0, 0, 0, now, is_foreign(record, 5)
  end
  local notice = behind(start, now)
  if now < start then now = start end
  if now >= start + length then
    start, previous, current, limit, length = start + length, current, 0, capacity, fill
    if now >= start + length then start = nil end
  end
  return start, previous, current, limit < capacity and limit or capacity, length, now, notice
end

local function sliding_fresh_at(start, previous, current, length, now, fill)
  if current > 0 then return start + length + fill end
  return previous > 0 and start + length or now
end

algorithms.slidingwindow = {
  read = function(key)
    return call('HMGET', key, 'window', 'previous', 'current', 'limit', 'length')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local fill = ceil_div(capacity * unit, gain)
    local start, previous, current, limit, length, at, notice = sliding_read(record, now, capacity, fill)
    if not start then
      start, previous, current, limit, length = at - at % fill, 0, 0, capacity, fill
    end
    local left = start + length - at
    local remaining = sliding_remaining(previous, current, limit, length, left)
    if cost > remaining then
      local _, reset, next_after = sliding_standing(previous, current, limit, length, left, capacity, fill)
      local wait = sliding_wait(cost, previous, current, limit, length, left, capacity, fill)
      return wait, remaining, reset, next_after, notice
    end
    current = current + cost
    local rest, reset, next_after = sliding_standing(previous, current, limit, length, left, capacity, fill)
    return 0, rest, reset, next_after, notice,
      sliding_fresh_at(start, previous, current, length, at, fill), start, previous, current, limit, length
  end,

  credit = function(record, now, charged_at, tokens, capacity, gain, unit)
    local fill = ceil_div(capacity * unit, gain)
    local start, previous, current, limit, length, at = sliding_read(record, now, capacity, fill)
    if not start or charged_at >= start + length or charged_at < start - fill then return nil end
    if charged_at >= start then
      current = current > tokens and current - tokens or 0
    else
      previous = previous > tokens and previous - tokens or 0
    end
    return sliding_fresh_at(start, previous, current, length, at, fill), start, previous, current, limit, length
  end,

  write = function(key, record, start, previous, current, limit, length)
    previous, current = format(DECIMAL, previous), format(DECIMAL, current)
    start, limit, length = as_text[start], as_text[limit], as_text[length]
    if record[1] == start and record[4] == limit and record[5] == length then
      return call('HSET', key, 'previous', previous, 'current', current)
    end
    return call('HSET', key, 'window', start, 'previous', previous, 'current', current,
      'limit', limit, 'length', length)
  end,
}
