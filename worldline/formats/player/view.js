// The camera that looks: recorded ones, and one that people move. Axes as OpenCV's: x right, y down, z forward, in the world.
const vec = {
  add: (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]],
  dot: (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2],
  cross: (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]],
  unit: (a) => { const n = Math.hypot(...a) || 1; return [a[0] / n, a[1] / n, a[2] / n]; },
  // Rodrigues' formula.
  turn: (a, axis, angle) => {
    const c = Math.cos(angle), s = Math.sin(angle), k = vec.dot(axis, a) * (1 - c), w = vec.cross(axis, a);
    return [0, 1, 2].map((n) => a[n] * c + w[n] * s + axis[n] * k);
  },
};

// A camera from `world_from_camera`, 3 or 4 rows of 4, row by row.
function cameraFromPose(pose) {
  const column = (k) => [pose[k], pose[4 + k], pose[8 + k]];
  return { x: column(0), y: column(1), z: column(2), eye: column(3) };
}

// `camera_from_world` by columns, as WebGL takes it.
function matrixOf({ x, y, z, eye }) {
  const m = new Float32Array(16);
  [x, y, z].forEach((axis, row) => {
    for (let k = 0; k < 3; k++) m[4 * k + row] = axis[k];
    m[12 + row] = -vec.dot(axis, eye);
  });
  m[15] = 1;
  return m;
}

// Between recorded poses: positions go straight, the rotation about one axis at a constant rate.
function createPath(cameras) {
  const { times_s: times, poses } = cameras;
  return {
    times,
    at(time) {
      let low = 0;
      while (low < times.length - 2 && times[low + 1] <= time) low++;
      const first = cameraFromPose(poses[low]);
      if (times.length === 1) return first;
      const second = cameraFromPose(poses[low + 1]);
      const share = Math.min(Math.max((time - times[low]) / (times[low + 1] - times[low]), 0), 1);
      // The axis of the turn from the first to the second, as the sum of the cross products of their axes.
      const across = ["x", "y", "z"].map((k) => vec.cross(first[k], second[k])).reduce((a, b) => vec.add(a, b));
      const sine = 0.5 * Math.hypot(...across);
      const cosine = 0.5 * (vec.dot(first.x, second.x) + vec.dot(first.y, second.y) + vec.dot(first.z, second.z) - 1);
      const angle = Math.atan2(sine, cosine), axis = vec.unit(across);
      const made = { eye: vec.add(first.eye, vec.add(second.eye, first.eye, -1), share) };
      for (const k of ["x", "y", "z"]) made[k] = sine > 1e-12 ? vec.turn(first[k], axis, angle * share) : first[k];
      return made;
    },
    // Lines of the path and of a dozen of its cameras, each `size` deep.
    lines(lens, size) {
      const all = poses.map(cameraFromPose), points = [];
      for (let k = 1; k < all.length; k++) points.push(all[k - 1].eye, all[k].eye);
      const every = Math.max(1, Math.round(all.length / 12));
      for (let k = 0; k < all.length; k += every) {
        const { x, y, z, eye } = all[k];
        const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([a, b]) => {
          const right = size * (a * cameras.width - lens[2]) / lens[0], down = size * (b * cameras.height - lens[3]) / lens[1];
          return vec.add(vec.add(vec.add(eye, x, right), y, down), z, size);
        });
        corners.forEach((corner, n) => points.push(eye, corner, corner, corners[(n + 1) % 4]));
      }
      return new Float32Array(points.flat());
    },
  };
}

// A camera that turns about a point `distance` ahead of it and keeps `up` up.
function createOrbit(up) {
  let camera = null, distance = 1;
  const pivot = () => vec.add(camera.eye, camera.z, distance);
  const spin = (axis, angle) => { for (const k of ["x", "y", "z"]) camera[k] = vec.turn(camera[k], axis, angle); };
  return {
    get camera() { return camera; },
    get distance() { return distance; },
    set(start, ahead) { camera = { ...start }; distance = ahead; },
    // Radians about the vertical and about the camera's own horizontal, around the pivot or (`inPlace`) the camera itself.
    turn(right, down, inPlace = false) {
      const centre = pivot();
      const height = Math.acos(Math.min(Math.max(vec.dot(camera.z, up), -1), 1)); // angle from straight up
      const tilt = Math.min(Math.max(height + down, 0.05), Math.PI - 0.05) - height;
      spin(up, -right);
      spin(camera.x, -tilt);
      if (!inPlace) camera.eye = vec.add(centre, camera.z, -distance);
    },
    // Shares of the distance to the pivot, along the camera's axes.
    move(right, down, forward) {
      for (const [axis, share] of [["x", right], ["y", down], ["z", forward]]) camera.eye = vec.add(camera.eye, camera[axis], share * distance);
    },
    // Nearer to the pivot by a factor; the pivot runs ahead when it is nearly reached.
    zoom(factor, nearest) {
      const centre = pivot();
      distance = Math.max(distance / factor, nearest);
      camera.eye = factor > 1 && distance === nearest ? vec.add(camera.eye, camera.z, 0.3 * nearest) : vec.add(centre, camera.z, -distance);
    },
  };
}
