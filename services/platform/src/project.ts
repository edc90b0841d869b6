/** The tenant's name: one rule for every service, as the project is part of artifact paths. */
import { invalidField } from "./errors.js";

/** Safe as a folder's name on every system. */
const projectPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;

/** Returns the project's name. Throws invalid_argument naming `field`. */
export function requireProject(projectId: string, field = "project_id"): string {
  if (projectPattern.test(projectId)) return projectId;
  throw invalidField(
    field,
    'must be 1 to 63 letters, digits, "_" or "-", beginning with a letter or digit, e.g. "default".',
  );
}
