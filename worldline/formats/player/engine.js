// Where the Gaussians are at a time, and in which order a view sees them. Runs in a worker where there is one.
//
// A state is two textures of four floats a texel: `place` (x, y, z, opacity) and `shape`, three texels a Gaussian:
// (xx, xy, xz, yy), (yz, zz, -, -) of its covariance and (r, g, b, -).
function createEngine(header, buffer) {
  const WIDTH = 2048; // texels in a row
  const count = header.count, moving = header.moving;
  const start = header.start, span = header.end - header.start;

  function read(name) {
    const entry = header.arrays[name];
    if (!entry) return null;
    if (entry.type === "float32") return new Float32Array(buffer, entry.at, entry.length);
    const codes = new Uint16Array(buffer, entry.at, entry.length);
    const values = new Float32Array(entry.length);
    for (let i = 0, column = 0; i < codes.length; i++) {
      const value = entry.low[column] + entry.step[column] * codes[i];
      values[i] = entry.logarithm ? Math.exp(value) : value;
      if (++column === entry.low.length) column = 0;
    }
    return values;
  }
  const texels = (perGaussian, gaussians) => 4 * WIDTH * Math.ceil(gaussians * perGaussian / WIDTH);

  const means = read("means"), quats = read("quats"), scales = read("scales");
  const opacities = read("opacities"), colors = read("colors");
  const place = new Float32Array(texels(1, count)), shape = new Float32Array(texels(3, count));

  function writePlace(i, x, y, z, opacity) {
    place[4 * i] = x; place[4 * i + 1] = y; place[4 * i + 2] = z; place[4 * i + 3] = opacity;
  }
  function writeColor(i, r, g, b) {
    shape[12 * i + 8] = r; shape[12 * i + 9] = g; shape[12 * i + 10] = b;
  }
  // Covariance R S S^T R^T of a rotation (w, x, y, z) of any length and three standard deviations.
  function writeCovariance(i, w, x, y, z, sx, sy, sz) {
    const n = 1 / Math.sqrt(Math.max(w * w + x * x + y * y + z * z, 1e-24));
    w *= n; x *= n; y *= n; z *= n;
    const a = sx * sx, b = sy * sy, c = sz * sz;
    const r00 = 1 - 2 * (y * y + z * z), r01 = 2 * (x * y - w * z), r02 = 2 * (x * z + w * y);
    const r10 = 2 * (x * y + w * z), r11 = 1 - 2 * (x * x + z * z), r12 = 2 * (y * z - w * x);
    const r20 = 2 * (x * z - w * y), r21 = 2 * (y * z + w * x), r22 = 1 - 2 * (x * x + y * y);
    const o = 12 * i;
    shape[o] = a * r00 * r00 + b * r01 * r01 + c * r02 * r02;
    shape[o + 1] = a * r00 * r10 + b * r01 * r11 + c * r02 * r12;
    shape[o + 2] = a * r00 * r20 + b * r01 * r21 + c * r02 * r22;
    shape[o + 3] = a * r10 * r10 + b * r11 * r11 + c * r12 * r12;
    shape[o + 4] = a * r10 * r20 + b * r11 * r21 + c * r12 * r22;
    shape[o + 5] = a * r20 * r20 + b * r21 * r21 + c * r22 * r22;
  }

  for (let i = 0; i < count; i++) {
    writePlace(i, means[3 * i], means[3 * i + 1], means[3 * i + 2], opacities[i]);
    writeCovariance(i, quats[4 * i], quats[4 * i + 1], quats[4 * i + 2], quats[4 * i + 3], scales[3 * i], scales[3 * i + 1], scales[3 * i + 2]);
    writeColor(i, colors[3 * i], colors[3 * i + 1], colors[3 * i + 2]);
  }

  // Each kind of motion: set the moving Gaussians to a normalised time; `reshapes` says whether covariance or colour change.
  const motions = { still: () => ({ reshapes: false, set() {} }), series, pulse, rigid };

  // Gaussian-Flow: sum_n a_n t'^n + sum_l b_l sin(2 pi l t') + c_l (cos(2 pi l t') - 1), t' = rate t - centre.
  function series() {
    const rates = read("rates"), centers = read("centers");
    const parts = [["position", 3], ["rotation", 4], ["color", 3]].map(([name, width]) => {
      const [powers, harmonics] = header.settings[name];
      return { width, powers, harmonics, terms: read(name + "_terms"), sum: new Float64Array(width) };
    });
    const [position, rotation, color] = parts;
    const most = (name) => Math.max(...parts.map((part) => part[name]));
    const power = new Float64Array(most("powers")), sine = new Float64Array(most("harmonics")), cosine = new Float64Array(most("harmonics"));
    function setBasis(local) {
      for (let n = 0, value = local; n < power.length; n++, value *= local) power[n] = value;
      const s = Math.sin(2 * Math.PI * local), c = Math.cos(2 * Math.PI * local);
      for (let l = 0, sl = s, cl = c; l < sine.length; l++, [sl, cl] = [sl * c + cl * s, cl * c - sl * s]) { sine[l] = sl; cosine[l] = cl - 1; }
    }
    function evaluate(part, i) {
      const { width, powers, harmonics, terms, sum } = part;
      sum.fill(0);
      if (!terms) return sum;
      let at = i * width * (powers + 2 * harmonics);
      for (let n = 0; n < powers; n++) for (let k = 0; k < width; k++) sum[k] += power[n] * terms[at++];
      for (let l = 0; l < harmonics; l++) for (let k = 0; k < width; k++) sum[k] += sine[l] * terms[at++];
      for (let l = 0; l < harmonics; l++) for (let k = 0; k < width; k++) sum[k] += cosine[l] * terms[at++];
      return sum;
    }
    const clamp = (value) => Math.min(Math.max(value, 0), 1);
    return {
      reshapes: Boolean(rotation.terms || color.terms),
      set(time) {
        for (let i = 0; i < moving; i++) {
          setBasis(rates[i] * time - centers[i]);
          const d = evaluate(position, i);
          writePlace(i, means[3 * i] + d[0], means[3 * i + 1] + d[1], means[3 * i + 2] + d[2], opacities[i]);
          if (rotation.terms) {
            const q = evaluate(rotation, i);
            writeCovariance(i, quats[4 * i] + q[0], quats[4 * i + 1] + q[1], quats[4 * i + 2] + q[2], quats[4 * i + 3] + q[3], scales[3 * i], scales[3 * i + 1], scales[3 * i + 2]);
          }
          const c = evaluate(color, i);
          writeColor(i, clamp(colors[3 * i] + c[0]), clamp(colors[3 * i + 1] + c[1]), clamp(colors[3 * i + 2] + c[2]));
        }
      },
    };
  }

  // Native 4D and birth (straight flight) and periodic vibration (a swing of period `cycle`), each with its fading about a peak.
  function pulse() {
    const velocities = read("velocities"), peaks = read("peaks"), spreads = read("spreads"), orders = read("time_colors");
    const starts = read("starts"), ends = read("ends"); // 32 bits of 64: windows that meet must still meet
    const { culled, cycle, orders: many } = header.settings;
    return {
      reshapes: Boolean(orders),
      set(time) {
        for (let i = 0; i < moving; i++) {
          const since = time - peaks[i];
          const way = cycle ? Math.sin(2 * Math.PI * since / cycle) * cycle / (2 * Math.PI) : since;
          let presence = Math.exp(-0.5 * (since / spreads[i]) ** 2);
          if (starts && !(starts[i] <= time + 1e-6 && time + 1e-6 < ends[i])) presence = 0;
          writePlace(i, means[3 * i] + way * velocities[3 * i], means[3 * i + 1] + way * velocities[3 * i + 1],
            means[3 * i + 2] + way * velocities[3 * i + 2], presence > culled ? opacities[i] * presence : 0);
          if (!orders) continue;
          let r = colors[3 * i], g = colors[3 * i + 1], b = colors[3 * i + 2];
          for (let n = 1, at = 3 * many * i; n <= many; n++, at += 3) {
            const wave = Math.cos(2 * Math.PI * n * since);
            r += wave * orders[at]; g += wave * orders[at + 1]; b += wave * orders[at + 2];
          }
          writeColor(i, r, g, b);
        }
      },
    };
  }

  // Boxes with poses at some times; in between along the great circle of rotations and the straight line of positions.
  function rigid() {
    const agents = read("agents"), times = read("agent_times"), turns = read("agent_quats"), positions = read("agent_positions"), alive = read("agent_alive");
    const many = header.settings.agents, last = times.length - 1;
    const poses = Array.from({ length: many }, () => ({ quat: [1, 0, 0, 0], position: [0, 0, 0], alive: false }));
    function pose(agent, before, after, share) {
      const a = 4 * (agent * times.length + before), b = 4 * (agent * times.length + after);
      let cosine = 0;
      for (let k = 0; k < 4; k++) cosine += turns[a + k] * turns[b + k];
      const sign = cosine < 0 ? -1 : 1, angle = Math.acos(Math.min(Math.abs(cosine), 1)), sine = Math.sin(angle);
      const from = sine > 1e-4 ? Math.sin((1 - share) * angle) / sine : 1 - share, to = sine > 1e-4 ? Math.sin(share * angle) / sine : share;
      const made = poses[agent], p = 3 * (agent * times.length + before), q = 3 * (agent * times.length + after);
      for (let k = 0; k < 4; k++) made.quat[k] = from * turns[a + k] + to * sign * turns[b + k];
      const n = Math.hypot(...made.quat);
      for (let k = 0; k < 4; k++) made.quat[k] /= n;
      for (let k = 0; k < 3; k++) made.position[k] = positions[p + k] + share * (positions[q + k] - positions[p + k]);
      made.alive = Boolean((alive[agent * times.length + before] || share === 1) && (alive[agent * times.length + after] || share === 0));
    }
    return {
      reshapes: true,
      set(time) {
        let before = 0;
        while (before < last - 1 && times[before + 1] <= time) before++;
        const after = Math.min(before + 1, last), length = times[after] - times[before];
        const share = length > 0 ? Math.min(Math.max((time - times[before]) / length, 0), 1) : 0;
        for (let agent = 0; agent < many; agent++) pose(agent, before, after, share);
        for (let i = 0; i < moving; i++) {
          const { quat: [w, x, y, z], position, alive: there } = poses[agents[i]];
          const px = means[3 * i], py = means[3 * i + 1], pz = means[3 * i + 2];
          const cx = y * pz - z * py, cy = z * px - x * pz, cz = x * py - y * px;
          writePlace(i, px + 2 * (w * cx + y * cz - z * cy) + position[0], py + 2 * (w * cy + z * cx - x * cz) + position[1],
            pz + 2 * (w * cz + x * cy - y * cx) + position[2], there ? opacities[i] : 0);
          const a = quats[4 * i], b = quats[4 * i + 1], c = quats[4 * i + 2], d = quats[4 * i + 3];
          writeCovariance(i, w * a - x * b - y * c - z * d, w * b + x * a + y * d - z * c, w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a, scales[3 * i], scales[3 * i + 1], scales[3 * i + 2]);
        }
      },
    };
  }

  // View-dependent colour, `terms` texels a Gaussian; the shader evaluates it.
  function viewColors() {
    const values = read("harmonics");
    if (!values) return null;
    const table = new Float32Array(texels(header.terms, count));
    for (let k = 0, at = 0; k < values.length; k += 3, at += 4) { table[at] = values[k]; table[at + 1] = values[k + 1]; table[at + 2] = values[k + 2]; }
    return table;
  }

  const motion = motions[header.motion]();

  // Sort by depth: the bits of a positive float are in the order of its value, so two passes over 16 bits each sort exactly.
  const depths = new Float32Array(count), bits = new Uint32Array(depths.buffer);
  const seen = new Uint32Array(count), half = new Uint32Array(count), bins = new Uint32Array(65537);
  function pass(from, to, total, shift) {
    bins.fill(0);
    for (let k = 0; k < total; k++) bins[((bits[from[k]] >>> shift) & 65535) + 1]++;
    for (let k = 0; k < 65536; k++) bins[k + 1] += bins[k];
    for (let k = 0; k < total; k++) to[bins[(bits[from[k]] >>> shift) & 65535]++] = from[k];
  }

  // Return the Gaussians before the near plane, farthest first. `axis` is the camera's z axis in the world and its offset.
  function sort(axis) {
    let ahead = 0;
    for (let i = 0; i < count; i++) {
      const depth = axis[0] * place[4 * i] + axis[1] * place[4 * i + 1] + axis[2] * place[4 * i + 2] + axis[3];
      depths[i] = depth;
      if (depth > 0) seen[ahead++] = i;
    }
    pass(seen, half, ahead, 0);
    pass(half, seen, ahead, 16);
    // As the engine draws: what is nearer than a share of the median depth is not drawn.
    const middle = ahead ? 0.5 * (depths[seen[(ahead - 1) >> 1]] + depths[seen[ahead >> 1]]) : 0;
    const near = ahead ? header.nearShare * middle : 0.01;
    const order = new Uint32Array(ahead);
    let drawn = 0;
    for (let k = ahead - 1; k >= 0 && depths[seen[k]] >= near; k--) {
      if (place[4 * seen[k] + 3] >= 1 / 255) order[drawn++] = seen[k];
    }
    return { order: order.slice(0, drawn), near, middle };
  }

  let shown = null;
  return {
    // The first state: everything, moving or not.
    all: () => ({ place: place.slice(), shape: shape.slice(), harmonics: viewColors() }),
    // Order for a time in seconds and a view, and what the Gaussians that move are like where the time has changed.
    answer({ time, axis, number }) {
      const normalised = span > 0 ? Math.min(Math.max((time - start) / span, 0), 1) : 0;
      const moved = normalised !== shown && moving > 0;
      if (moved) motion.set(normalised);
      shown = normalised;
      return {
        ...sort(axis), time, number,
        movingPlace: moved ? place.slice(0, texels(1, moving)) : null,
        movingShape: moved && motion.reshapes ? shape.slice(0, texels(3, moving)) : null,
      };
    },
  };
}

// The worker's side: arrays are handed over, not copied.
function serveEngine() {
  let engine = null;
  onmessage = ({ data }) => {
    if (data.header) engine = createEngine(data.header, data.buffer);
    const answer = data.header ? engine.all() : engine.answer(data);
    postMessage(answer, Object.values(answer).filter(ArrayBuffer.isView).map((array) => array.buffer));
  };
}
