-- Fixed window, the twin of fixed_window.rs.

algorithms.fixedwindow = {
  read = function(key)
    return call('HMGET', key, 'window', 'count', 'limit', 'length')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local start, count, limit, length = integers(record)
    local ours, notice = start and count < EXACT and is_window(start, limit, length), 0
    if ours then
      notice = behind(start, now)
    else
      notice = is_foreign(record, 4)
    end
    if not ours or now >= start + length then
      count, limit, length = 0, capacity, ceil_div(capacity * unit, gain)
      start = now - now % length
    end
    if limit > capacity then limit = capacity end
    if now < start then now = start end

    local left, remaining = start + length - now, limit > count and limit - count or 0
    if cost > remaining then
      return left, remaining, count > 0 and left or 0, remaining < capacity and left or 0, notice
    end
    return 0, remaining - cost, left, left, notice, start + length, start, count + cost, limit, length
  end,

  credit = function(record, now, charged_at, tokens, capacity)
    local start, count, limit, length = integers(record)
    if not (start and count < EXACT and is_window(start, limit, length)) then return nil end
    if now < start then now = start end
    if now >= start + length or charged_at < start or charged_at >= start + length then return nil end
    count = count > tokens and count - tokens or 0
    return count > 0 and start + length or now, start, count, limit < capacity and limit or capacity, length
  end,

  write = function(key, record, start, count, limit, length)
    start, count, limit, length = as_text[start], format(DECIMAL, count), as_text[limit], as_text[length]
    if record[1] == start and record[3] == limit and record[4] == length then
      return call('HSET', key, 'count', count)
    end
    return call('HSET', key, 'window', start, 'count', count, 'limit', limit, 'length', length)
  end,
}
